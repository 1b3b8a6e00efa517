"""Make the notebooks `article.ipynb` (English) and `article.zh.ipynb` (Chinese) from `article.md`, and run the code.

python docs/notebooks/build.py

`article.md` holds each text in both languages, and each code cell once. The code runs once, and both notebooks get its
outputs.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import adamas

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "article.md"
NOTEBOOKS = {"en": FOLDER / "article.ipynb", "zh": FOLDER / "article.zh.ipynb"}
PART = re.compile(r"^<!-- (en|zh) -->$(.*?)(?=^<!-- |^```python$|\Z)|^```python$(.*?)^```$", re.MULTILINE | re.DOTALL)


def parts(source: str) -> list[tuple[str, str]]:
    """Return the cells of the source in order: "en", "zh" or "code", and the text of the cell."""
    return [(match[1] or "code", (match[2] or match[3]).strip()) for match in PART.finditer(source)]


def notebook(source: str, language: str) -> Any:
    """Return the notebook of a language, without outputs. Its cells have the same names in every build."""
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for kind, text in parts(source):
        if kind in ("code", language):
            new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
            made.cells.append(new(text, id=f"cell-{len(made.cells)}"))
    return made


def run(made: Any) -> None:
    """Run the code of a notebook in an empty folder, and put what it shows into the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: an `assert` does not hold, or another error in a cell.
    """
    found = os.environ | {"PYTHONPATH": str(Path(adamas.__file__).parents[1])}  # the adamas of this process
    with tempfile.TemporaryDirectory() as folder:
        options = {"timeout": 300, "record_timing": False, "coalesce_streams": True}
        client = NotebookClient(made, resources={"metadata": {"path": folder}}, **options)
        client.execute(env=found)
    for cell in made.cells:
        if cell.cell_type == "code":  # warnings of packages name folders of the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    del made.metadata["language_info"]  # names the version of Python


def write(made: Any, path: Path) -> None:
    """Write a notebook in one step, so that an interrupted build leaves the old file."""
    new = path.with_suffix(".new")
    nbformat.write(made, new)
    os.replace(new, path)


def build() -> None:
    """Write both notebooks, with the outputs of one run."""
    source = SOURCE.read_text(encoding="utf-8")
    made = {language: notebook(source, language) for language in NOTEBOOKS}
    run(made["en"])
    for cell, ran in zip(made["zh"].cells, made["en"].cells, strict=True):
        if ran.cell_type == "code":
            cell.update(outputs=ran.outputs, execution_count=ran.execution_count)
    for language, path in NOTEBOOKS.items():
        write(made[language], path)


if __name__ == "__main__":
    build()
