from pathlib import Path

from reliability.record import Record, Trial


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    trials = [
        Trial("kill -9 of the engine's process", 3, 0, {"seconds until ready": 1.5}),
        Trial("a pipe that breaks", 1),
    ]
    record = Record("Failures", "Nothing is lost.", "python -m reliability.example", trials, ["Once."])
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
