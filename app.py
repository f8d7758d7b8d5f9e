"""The demo, as a Hugging Face Space starts it; elsewhere ``guardreasoner demo`` shows the same page.

The environment variable GUARDREASONER_DEMO_MODELS names the models to choose from, with commas between; without it
there is the embedded one.
"""

from __future__ import annotations

from guardreasoner_moderation.demo import DemoSettings, run

if __name__ == "__main__":
    run(DemoSettings.from_environment())
