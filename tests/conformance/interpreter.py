"""Triton's interpreter without most of its repeated work: the same operations in NumPy, in less time.

It replaces the functions of `triton.language` by its own before every call of a kernel and again before every call
inside one, where they are replaced already; looking for them takes more than half of its time. And it computes for each
sum whether it overflows, to tell nobody: that is said in Triton's debug mode alone, which it cannot be in.
"""

from __future__ import annotations

from dataclasses import replace as replace_fields
from functools import cache
from typing import Any


def quicken() -> None:
    """Let it replace them once for each launch. Another version of Triton that has no such part stays as it is."""
    import triton.language as tl
    from triton.runtime import interpreter

    if not all(hasattr(interpreter, name) for name in ("_LangPatchScope", "_patch_lang", "_get_np_dtype")):
        return
    replace, of_numpy = interpreter._patch_lang, interpreter._get_np_dtype
    known = cache(of_numpy)

    @cache
    def languages(fn: Any) -> list[Any]:
        return [value for value in fn.__globals__.values() if value is tl or value is tl.core]

    def replace_once(fn: Any) -> Any:
        if any(tl.core.is_builtin(language.load) for language in languages(fn)):
            return replace(fn)
        return interpreter._LangPatchScope()  # nothing to put back

    interpreter._patch_lang = replace_once
    options = interpreter.interpreter_builder.options
    if not options.debug:
        interpreter.interpreter_builder.options = replace_fields(options, sanitize_overflow=False)
    interpreter._get_np_dtype = lambda dtype: known(dtype) if type(dtype) is tl.dtype else of_numpy(dtype)
