"""Frames of an agent as an animated GIF."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDEST = 480
"""Pixels; larger frames are made smaller, for GIFs grow fast."""


def write_gif(frames: Sequence[Any], path: Path, *, fps: float = 30.0) -> None:
    """Write RGB frames, each `[height, width, 3]` of uint8, as a GIF that loops.

    Raises ValueError without frames.
    """
    from PIL import Image

    if not frames:
        raise ValueError("there is no frame to write: the environment must be made with render_mode='rgb_array'")
    pictures = [Image.fromarray(frame) for frame in frames]
    width, height = pictures[0].size
    if width > WIDEST:
        pictures = [picture.resize((WIDEST, round(height * WIDEST / width))) for picture in pictures]
    palette = pictures[len(pictures) // 2].quantize(colors=64)
    coded = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    # GIF counts in hundredths of a second, and viewers slow down what is faster than 50 frames a second.
    duration = max(20, round(1000 / fps / 10) * 10)
    coded[0].save(path, save_all=True, append_images=coded[1:], duration=duration, loop=0, optimize=True)
