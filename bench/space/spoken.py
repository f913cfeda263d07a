"""Spoken words as LLaVA JSON, by the speech synthesiser espeak-ng: a colour and a shape a clip, asked about.

    python bench/space/spoken.py --to FOLDER [--clips 400]

Every clip has a voice, pitch and speed of its own draw; `nas search --space audio-edge --data FOLDER` and `nas train` read the folder.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

COLOURS = ["red", "green", "blue", "black", "gray", "brown", "yellow", "teal"]
SHAPES = ["circle", "rectangle", "triangle"]
VOICES = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029"]
TIMBRES = ["", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4"]


def speak(text: str, file: Path, draw: random.Random) -> None:
    """A WAV file of 16 bits."""
    voice = draw.choice(VOICES) + draw.choice(TIMBRES)
    manner = ["-v", voice, "-p", str(draw.randint(20, 80)), "-s", str(draw.randint(130, 200))]
    subprocess.run(["espeak-ng", *manner, "-w", str(file), text], check=True)


def entry(number: int, folder: Path, draw: random.Random) -> dict[str, Any]:
    """One clip with what is asked about it, in the LLaVA form."""
    colour, shape, other = draw.choice(COLOURS), draw.choice(SHAPES), draw.choice(SHAPES)
    name = f"{number:04}.wav"
    speak(f"a {colour} {shape}", folder / name, draw)
    turns = [
        ("Which colour is named?", colour), ("Which shape is named?", shape),
        (f"Is it a {other}?", "yes" if other == shape else "no"),
    ]  # fmt: skip
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    said[0]["value"] = f"<sound>\n{said[0]['value']}"
    return {"id": f"{number:04}", "sound": name, "conversations": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=400)
    asked = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        parser.error("needs espeak-ng; Debian has it: apt-get install espeak-ng")
    asked.to.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    entries = [entry(number, asked.to, draw) for number in range(asked.clips)]
    (asked.to / "spoken.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
