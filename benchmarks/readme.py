"""Put the figures of benchmarks/results/step-cpu.json into the README, between its benchmark markers.

python benchmarks/readme.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- benchmark -->.*<!-- /benchmark -->", re.DOTALL)


def table(result: dict) -> str:
    """The rows beside torch fused, losing ones included, as Markdown."""
    lines = [
        "<!-- benchmark -->",
        "| parameters | ratio to torch fused | range | ns a parameter, ours | torch fused |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["peer"] != "torch fused":
            continue
        ours, peer = (row[f"{side}_seconds"] / row["parameters"] * 1e9 for side in ("ours", "peer"))
        spread = f"{row['lowest']:.2f}-{row['highest']:.2f}"
        lines.append(f"| {row['scenario']} | **{row['ratio']:.2f}** | {spread} | {ours:.2f} | {peer:.2f} |")
    versions, machine = result["versions"], result["machine"]
    lines += [
        "",
        f"torch {versions['torch']}, {machine['processor']}, {machine['threads']} threads, "
        f"{machine['instruction_sets'][0]}.",
        "<!-- /benchmark -->",
    ]
    return "\n".join(lines)


def filled(readme: str, result: dict) -> str:
    """The README with this result's table."""
    return MARKED.sub(lambda _: table(result), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    result = json.loads((ROOT / "benchmarks/results/step-cpu.json").read_text())
    path.write_text(filled(path.read_text(), result))
