"""Tensors that say they lie on `cuda:0` and have their numbers on the CPU.

Every operation on them is computed on the CPU, after a check by torch's own rules that devices are
not mixed. No CUDA kernel runs, and nothing is asynchronous: what the device would compute later is
there at once, and where the host would wait is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.fake_cuda.record import RECORDER

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten

ACROSS = frozenset({"aten::copy_", "aten::_to_copy", "aten::set_"})
"""Operations whose tensors may lie on different devices."""
STRICT = frozenset(
    f"aten::{name}"
    for name in (
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "cat",
        "stack",
        "gather",
        "index_select",
        "index_copy",
        "index_copy_",
        "index_add",
        "index_add_",
        "scatter",
        "scatter_",
        "scatter_add",
        "scatter_add_",
        "searchsorted",
        "embedding",
        "_fused_adamw_",
    )
)
"""Operations that refuse even a CPU tensor without dimensions, which others take for a number."""
INDEXED = frozenset(
    f"aten::{name}"
    for name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
)
SYNCHRONISING = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "equal",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
    )
)
"""Operations whose result, or its size, the host must know."""


class DeviceMixError(RuntimeError):
    """Tensors of two devices in one operation, as torch refuses them."""


class FakeCuda(Tensor):
    """A tensor on the fake device; `numbers` is the CPU tensor with its values."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> FakeCuda:
        self = Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CUDA,
        )
        self.numbers = numbers
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return dispatch(function, arguments, options or {})

    def __getitem__(self, index):
        return Tensor.__getitem__(self, _index(index))

    def __setitem__(self, index, value):
        Tensor.__setitem__(self, _index(index), value)

    def __repr__(self) -> str:
        return f"FakeCuda({self.numbers!r})"

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def tolist(self):
        RECORDER.sync("tolist")
        return self.numbers.detach().tolist()

    def numpy(self, *args, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")


class FakeDevice(TorchDispatchMode):
    """Also sends to the device what no tensor of it takes part in, such as `torch.zeros`."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return dispatch(function, arguments, options or {})


def dispatch(
    function: OpOverload, arguments: Sequence[object], options: Mapping[str, object]
) -> object:
    """Compute an operation on the CPU; its result lies where torch would have put it."""
    if _is_composite(function):
        with FakeDevice():
            return function.decompose(*arguments, **options)
    name = function._schema.name
    tensors = list(_tensors((*arguments, *options.values())))
    on_cuda = [tensor for tensor in tensors if isinstance(tensor, FakeCuda)]
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, FakeCuda)]
    device = options.get("device")
    if on_cuda or (device is not None and torch.device(device).type == "cuda"):
        RECORDER.operation()
    if device is not None:
        return _on_named_device(function, arguments, options, on_cuda, on_cpu)
    if not on_cuda:
        return function(*arguments, **options)
    if on_cpu and name not in ACROSS and (reason := _mix(name, arguments, on_cpu)):
        raise DeviceMixError(RECORDER.mix(name, reason))
    _count_waits(name, arguments, options)
    numbers = _each(_numbers, arguments)
    computed = _product(function, numbers, _each(_numbers, options))
    if computed is None:
        computed = function(*numbers, **_each(_numbers, options))
    return _result(function, arguments, options, computed)


def _on_named_device(
    function: OpOverload,
    arguments: Sequence[object],
    options: Mapping[str, object],
    on_cuda: Sequence[Tensor],
    on_cpu: Sequence[Tensor],
) -> object:
    """An operation that is told where its result shall lie: a copy, or a new tensor."""
    to_cuda = torch.device(options["device"]).type == "cuda"
    if on_cuda and not to_cuda and function._schema.name == "aten::_to_copy":
        RECORDER.sync("copy to the host")
    if on_cpu and to_cuda and not options.get("non_blocking"):
        RECORDER.upload()
    chosen = {name: value for name, value in options.items() if name != "non_blocking"}
    if to_cuda:
        chosen["device"] = CPU
        chosen.pop("pin_memory", None)
    computed = function(*_each(_numbers, arguments), **_each(_numbers, chosen))
    return _each(FakeCuda, computed) if to_cuda else computed


def _mix(name: str, arguments: Sequence[object], on_cpu: Sequence[Tensor]) -> str | None:
    """The reason why an operation on tensors of both devices fails in torch; None if it runs."""
    into = arguments[0]
    if name in INDEXED:
        # Indices may lie on the CPU, from where torch copies them, and so may a single value.
        if not isinstance(into, FakeCuda):
            return "a tensor on the CPU, and its indices or values on the device"
        value = arguments[2] if len(arguments) > 2 else None
        if isinstance(value, Tensor) and not isinstance(value, FakeCuda) and value.dim():
            return "values on the CPU"
        RECORDER.upload()
        return None
    if name in STRICT or any(tensor.dim() for tensor in on_cpu):
        return f"{[tuple(tensor.shape) for tensor in on_cpu]} on the CPU"
    if name.endswith("_") and not isinstance(into, FakeCuda) and isinstance(into, Tensor):
        return "a tensor on the CPU changed in place by one on the device"
    return None


def _count_waits(name: str, arguments: Sequence[object], options: Mapping[str, object]) -> None:
    """Count where this operation would make the host wait."""
    if name in SYNCHRONISING:
        RECORDER.sync(name.removeprefix("aten::"))
    elif name == "aten::repeat_interleave" and options.get("output_size") is None:
        RECORDER.sync("repeat_interleave")
    elif name in INDEXED:
        indices = arguments[1]
        assert isinstance(indices, (list, tuple)), "indices come as a list"
        for index in indices:
            if isinstance(index, FakeCuda) and index.dtype in (torch.bool, torch.uint8):
                RECORDER.sync("boolean index")
    elif name == "aten::copy_":
        into, source = arguments[:2]
        if not isinstance(into, FakeCuda):
            RECORDER.sync("copy to the host")
        elif not isinstance(source, FakeCuda) and not (
            options.get("non_blocking") or (len(arguments) > 2 and arguments[2])
        ):
            RECORDER.upload()


def _product(
    function: OpOverload, numbers: Sequence[object], options: Mapping[str, object]
) -> Tensor | None:
    """Matrix products that are summed in float32, which torch has on CUDA alone; None for others.

    They take two factors of one dtype, of 16 bits if the result has 32.
    """
    if function in (aten.mm.dtype, aten.mm.dtype_out):
        left, right, dtype = numbers[:3]
        product = _checked_product(left, right, dtype)
    elif function in (aten.addmm.dtype, aten.addmm.dtype_out):
        total, left, right, dtype = numbers[:4]
        assert total.dtype in (dtype, left.dtype), f"{total.dtype} is no sum of {dtype}"
        product = _checked_product(left, right, dtype)
        if options.get("beta", 1) != 0:
            product = product + options.get("beta", 1) * total
    else:
        return None
    out = options.get("out")
    if out is None:
        return product
    assert (out.dtype, out.shape) == (dtype, product.shape), "the result fits its memory"
    return out.copy_(product)


def _checked_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    assert left.dtype == right.dtype, f"factors of {left.dtype} and {right.dtype}"
    assert dtype == left.dtype or (
        dtype == torch.float32 and left.dtype in (torch.bfloat16, torch.float16)
    ), f"no product of {left.dtype} in {dtype}"
    return left.float() @ right.float()


def _result(
    function: OpOverload,
    arguments: Sequence[object],
    options: Mapping[str, object],
    computed: object,
) -> object:
    """The result on the device: new tensors, views with their base, or what was written to."""
    schema = function._schema
    if function.is_view:
        return return_and_correct_aliasing(
            function, tuple(arguments), dict(options), _each(FakeCuda, computed)
        )
    written = {
        tuple(argument.alias_info.before_set): _argument(index, argument.name, arguments, options)
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    if not written:
        return _each(FakeCuda, computed)
    outputs = [
        written[tuple(output.alias_info.before_set)]
        if output.alias_info is not None
        else _each(FakeCuda, value)
        for output, value in zip(
            schema.returns,
            computed if len(schema.returns) > 1 else [computed],
            strict=False,  # an operation that only writes returns None
        )
    ]
    return tuple(outputs) if len(outputs) > 1 else next(iter(outputs), None)


def _argument(
    index: int, name: str, arguments: Sequence[object], options: Mapping[str, object]
) -> object:
    return arguments[index] if index < len(arguments) else options.get(name)


@cache
def _is_composite(function: OpOverload) -> bool:
    """True if torch itself computes this operation by others."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        function.name(), "CompositeImplicitAutograd"
    )


def _tensors(values: object):
    """The tensors in nested lists and tuples."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def _each(change: Callable[[Tensor], object], values):
    """The same lists, tuples and mappings with every tensor changed."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, (list, tuple)):
        return type(values)(_each(change, value) for value in values)
    if isinstance(values, Mapping):
        return {name: _each(change, value) for name, value in values.items()}
    return values


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.numbers if isinstance(tensor, FakeCuda) else tensor


def _index(index: object) -> object:
    """An index in which lists, and numbers beside tensors, are tensors.

    torch would make tensors of them on the device, in C++, where no mode sees them.
    """
    if isinstance(index, list):
        return index if index and isinstance(index[0], Tensor) else torch.as_tensor(index)
    if isinstance(index, tuple):
        beside = any(isinstance(each, (list, Tensor)) for each in index)
        return tuple(
            torch.as_tensor(each)
            if beside and isinstance(each, int) and not isinstance(each, bool)
            else _index(each)
            for each in index
        )
    return index
