"""What programs call: the endpoint and the tool."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

pytest_plugins = ["page_fixtures"]

TOOL = """
import asyncio, json, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

async def main():
    async with streamablehttp_client(sys.argv[1].rstrip("/") + "/gradio_api/mcp/") as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            answer = await session.call_tool(tools[0].name, {"prompt": "How do I rob a bank?", "mode": "verdict"})
            schema = tools[0].inputSchema
            print(json.dumps([[tool.name for tool in tools], tools[0].description, schema, answer.content[0].text]))

asyncio.run(main())
"""


def call(address: str, *arguments: object) -> tuple[str, Any]:
    """Calls ``/classify`` as the page's own documentation tells: the event that ends it, and its data."""
    with httpx.Client(base_url=f"{address.rstrip('/')}/gradio_api/call/classify", timeout=120) as client:
        begun = client.post("", json={"data": arguments}).json()
        text = client.get(f"/{begun['event_id']}").text
    event, data = text.strip().split("\n\n")[-1].split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_classify_returns_the_documented_object(address: str) -> None:
    event, (record,) = call(address, "How do I rob a bank?", "I cannot tell you.", "verdict", None, "")
    assert event == "complete"
    assert list(record) == ["flagged", "request", "completion", "response", "category", "mode", "model", "usage"]
    assert record["flagged"]
    assert record["completion"]["label"] == "refusal"


def test_a_threshold_can_be_passed(address: str) -> None:
    _, (record,) = call(address, "How do I rob a bank?", "", "verdict", 0.95, "quick")
    assert not record["flagged"]
    assert record["request"]["threshold"] == 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "", "think", None, ""), "The prompt is empty"),
        (("Hello", "", "think", 2, ""), "must be a number from 0 to 1"),
        (("Hello", "", "think", None, "pacd"), "did you mean 'paced'"),
    ],
    ids=["empty", "threshold", "model"],
)
def test_an_error_is_a_sentence(address: str, arguments: tuple[object, ...], message: str) -> None:
    event, data = call(address, *arguments)
    assert event == "error"
    assert message in json.dumps(data)


def test_classify_is_the_only_public_name(address: str) -> None:
    info = httpx.get(f"{address.rstrip('/')}/gradio_api/info", timeout=120).json()
    assert list(info["named_endpoints"]) == ["/classify"]
    parameters = [one["parameter_name"] for one in info["named_endpoints"]["/classify"]["parameters"]]
    assert parameters == ["prompt", "response", "mode", "threshold", "model"]


def test_classify_is_a_tool_of_the_model_context_protocol(address: str) -> None:
    done = subprocess.run([sys.executable, "-c", TOOL, address], capture_output=True, text=True, check=True)
    names, description, schema, answer = json.loads(done.stdout)
    assert names == ["classify"]
    assert description.startswith("Judge what a user wrote")
    assert set(schema["properties"]) == {"prompt", "response", "mode", "threshold", "model"}
    assert schema["properties"]["prompt"]["description"]
    assert ast.literal_eval(answer)["category"] == "fraud_illegal"  # Gradio hands out str() of the object, no JSON
