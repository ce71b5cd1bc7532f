"""TensorBoard's own reader finds in our event files what was written."""

import subprocess
import sys

import pytest

from vantage.runs.events import EventFile, checksum, varint


def read(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_the_checksum_is_castagnolis():
    crc = 0xE3069283  # of "123456789", RFC 3720's check value
    assert checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize(("n", "coded"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_whole_numbers_take_seven_bits_a_byte(n, coded):
    assert varint(n) == coded


def test_tensorboard_reads_what_was_written(tmp_path):
    file = EventFile(tmp_path)
    file.write({"train/kl": 0.5, "rollout/ep_rew_mean": -3.25}, 256)
    file.write({"train/kl": 1e-8}, 3_000_000_000)
    file.write({"large": 1e300}, 1)
    file.close()
    found = read(tmp_path)
    assert found["large"] == [(1, float("inf"))]
    assert found["train/kl"] == [(256, 0.5), (3_000_000_000, pytest.approx(1e-8))]
    assert found["rollout/ep_rew_mean"] == [(256, -3.25)]


def test_a_resumed_run_forgets_what_lies_behind_its_checkpoint(tmp_path):
    for purge, steps in ((None, (1, 2, 3)), (2, (2, 3))):
        file = EventFile(tmp_path, purge=purge)
        for step in steps:
            file.write({"x": 10.0 * step + (purge or 0)}, step)
        file.close()
    assert read(tmp_path)["x"] == [(1, 10.0), (2, 22.0), (3, 32.0)]


def test_a_log_needs_no_other_library():
    code = "import sys, vantage.runs.log, vantage.runs.events; print({'torch', 'tensorboardX'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
