"""The words of the README's benchmark table in Chinese."""

from __future__ import annotations

import re

# A pattern of the English text and its Chinese replacement, applied in this order.
WORDS = (
    (r"\| processor \|", "| 处理器 |"),
    (r"\| parameters \|", "| 参数 |"),
    (r"\| ratio to torch fused \|", "| 与 torch fused 的比值 |"),
    (r"\| range \|", "| 范围 |"),
    (r"\| ours \|", "| Adamas |"),
    (r"\| error, ours / torch fused \|", "| 误差，Adamas / torch fused |"),
    (r"\| phase \|", "| 阶段 |"),
    (r"\| step \|", "| 单步 |"),
    (r"(\d+) tensors, ", r"\1 个张量，"),
    (r"(\d+) threads, ", r"\1 个线程，"),
    (r", doubtful \|", "，存疑 |"),
    (r"no native kernel", "没有原生内核"),
    (r" Doubtful: other processes took up to (\S+) of the machine in (\d+) rows\.",
     r" 存疑：测量其中 \2 行时，其他进程至多占用了机器的 \1。"),
)  # fmt: skip


def in_chinese(text: str) -> str:
    """Return the benchmark table, and the lines below it, with their words in Chinese and their figures unchanged."""
    for english, chinese in WORDS:
        text = re.sub(english, chinese, text)
    return text
