"""Record what a pass does, once, and repeat it: the same operations on plain tensors, without the way there.

Of a small network's pass, `torch.vmap` and autograd take as long as the arithmetic: each layer is taken apart anew, and
each piece becomes a node of a graph that lives for one backward pass. What arrives at the processor is the same list of
operations in every step. A repetition calls these, on the step's own batch and weights, and gives the same bits.

That holds for a pass that does the same whatever the step: no branch on a tensor's value, no counter in Python, no
random number that is not torch's. `adamas.compare.runner.repeating` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

VARYING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
MASKS = (torch.bool, torch.uint8)


@dataclass(frozen=True, slots=True)
class Operation:
    """A call: its arguments and results are places in a table of values.

    Attributes:
        function: what is called.
        arguments: where they are.
        results: where they go; one result as it is, several one by one.
        over: places that nobody reads afterwards.
    """

    function: Callable[..., Any]
    arguments: list[int]
    results: list[int]
    single: bool
    over: tuple[int, ...] = ()


class Recorder(TorchDispatchMode):
    """Notes every operation that is called while it is entered.

    Args:
        inputs: the tensors that are others at each repetition; all others that are read are taken for constants.

    Attributes:
        operations: as they were called.
        values: inputs, constants, and results at their places: all stay alive, so that no other has their id.
        obstacle: why the operations cannot be repeated; None if they can.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.values: list[Any] = list(inputs)
        self.obstacle: str | None = None
        self._places = {id(tensor): place for place, tensor in enumerate(inputs)}
        self._constants: set[int] = set()  # where their memory begins

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's question whether to keep its compiler out of this class, for which it would import it: a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operation, and note it."""
        kwargs = kwargs or {}
        arguments = [self.read(argument) for argument in args]
        self.obstacle = self.obstacle or self.obstacle_in(func, args, kwargs)
        found = func(*args, **kwargs)
        single = isinstance(found, Tensor)
        results = found if isinstance(found, list | tuple) else [] if found is None else [found]
        if any(not isinstance(result, Tensor | None) for result in results):
            self.obstacle = self.obstacle or f"{func} returns what Python can look at"
        if single and is_alias(found, args):
            self.put(found, arguments[0])
        else:
            function = partial(func, **kwargs) if kwargs else func
            places = [self._places[id(each)] if id(each) in self._places else self.put(each) for each in results]
            self.operations.append(Operation(function, arguments, places, single))
        return found

    def put(self, value: Any, place: int | None = None) -> int:
        """Put a value into the table, or say that it is another name for what is at `place`."""
        self.values.append(value)
        place = len(self.values) - 1 if place is None else place
        if isinstance(value, Tensor):
            self._places[id(value)] = place
        return place

    def read(self, value: Any) -> int:
        """Where an argument is; what nobody made here is a constant."""
        if id(value) in self._places:
            return self._places[id(value)]
        if isinstance(value, Tensor):
            self._constants.add(memory(value))
        elif isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            parts = [self.read(each) for each in value]
            self.operations.append(Operation(listed, parts, [self.put(value)], single=True))
            return len(self.values) - 1
        return self.put(value)

    def obstacle_in(self, function: Any, arguments: Sequence[Any], named: dict[str, Any]) -> str | None:
        """Why an operation cannot be repeated."""
        if is_varying(function, arguments):
            return f"{function} returns as many elements as a tensor's values say"
        if any(isinstance(value, Tensor | torch.Generator) for value in named.values()):
            return f"{function} is given a tensor or a generator by name"
        for argument, declared in zip(arguments, function._schema.arguments, strict=False):
            written = declared.alias_info is not None and declared.alias_info.is_write
            for tensor in argument if isinstance(argument, list | tuple) else [argument]:
                if written and isinstance(tensor, Tensor) and memory(tensor) in self._constants:
                    return f"{function} writes to a tensor that is neither the model's nor made in the pass"
        return None


class Recording:
    """The operations of a pass, to be called again.

    Args:
        run: the pass; it reads and, for buffers, writes `inputs` and returns tensors, or None where there is none.
        inputs: what changes from one repetition to the next; their shapes, strides and types must not.

    Attributes:
        found: what the pass returned, this first time.
        obstacle: why it must not be repeated; None if it may be.

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> square = Recording(lambda: torch.autograd.grad(x**2, [x]), [x])
        >>> square.found, square.repeat([torch.tensor([5.0])])
        ((tensor([6.]),), [tensor([10.])])
    """

    def __init__(self, run: Callable[[], Sequence[Tensor | None]], inputs: Sequence[Tensor]) -> None:
        with Recorder(inputs) as recorder:
            self.found = run()
        self.obstacle = recorder.obstacle
        self._outputs = [None if each is None else recorder.read(each) for each in self.found]
        made: set[int] = set()
        constants: set[int] = set()
        for operation in recorder.operations:
            constants.update(set(operation.arguments) - made)  # also where it gives a constant back as its result
            made.update(operation.results)
        constants.update({place for place in self._outputs if place is not None} - made)
        constants.difference_update(range(len(inputs)))
        self._values = [value if place in constants else None for place, value in enumerate(recorder.values)]
        self._operations = list(reversed(list(with_ends(recorder.operations, made.difference(self._outputs)))))

    @torch.no_grad()
    def repeat(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Do with other inputs what the pass did."""
        values = [*inputs, *self._values[len(inputs) :]]
        for operation in self._operations:
            found = operation.function(*[values[place] for place in operation.arguments])
            if operation.single:
                values[operation.results[0]] = found
            else:
                for place, value in zip(operation.results, found or (), strict=True):
                    values[place] = value
            for place in operation.over:
                values[place] = None
        return [None if place is None else values[place] for place in self._outputs]


def is_varying(function: Any, arguments: Sequence[Any]) -> bool:
    """Whether the shapes that an operation returns depend on a tensor's values.

    torch says so of every index, though only masks pick a number of elements that is theirs.
    """
    if function is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype in MASKS for index in arguments[1])
    return not VARYING.isdisjoint(function.tags)


def memory(tensor: Tensor) -> int:
    """Where the memory begins of which a tensor is a part."""
    return tensor.untyped_storage().data_ptr()


def is_alias(result: Tensor, arguments: Sequence[Any]) -> bool:
    """Whether an operation gave its only tensor back, seen as before: what depends on shapes and strides alone."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    return (
        len(tensors) == 1
        and tensors[0] is arguments[0]
        and result is not tensors[0]
        and result.dtype == tensors[0].dtype
        and result.data_ptr() == tensors[0].data_ptr()
        and layout(result) == layout(tensors[0])
    )


def with_ends(operations: Sequence[Operation], passing: set[int]) -> Iterator[Operation]:
    """The operations from the last to the first, each with those of the `passing` places that it is the last to use."""
    for operation in reversed(operations):
        over = passing.intersection((*operation.arguments, *operation.results))
        passing = passing - over
        yield replace(operation, over=tuple(over))


def listed(*values: Any) -> list[Any]:
    """Values as the list that some operations take."""
    return list(values)


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor lies in memory."""
    return tensor.shape, tensor.stride(), tensor.dtype
