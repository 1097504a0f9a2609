"""FLOPs and bytes against what is counted by hand, and against torch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from nirvana.nn.attention import plain_attention
from nirvana.train.operations import (
    ATTENTION,
    CONVOLUTION,
    COPY,
    DATA,
    EMA,
    MATRIX,
    NORM,
    OPTIMISER,
    OTHER,
    POINTWISE,
    RANDOM,
    Tally,
    held_bytes,
    kind_of,
)


def rand(*shape: int, grad: bool = False) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_(grad)


def test_a_convolution_forward_and_backward_is_counted_as_by_hand() -> None:
    x, w, b = rand(2, 3, 8, 8, grad=True), rand(5, 3, 3, 3, grad=True), rand(5, grad=True)
    gradient = rand(2, 5, 8, 8)
    with Tally() as forward:
        y = conv2d(x, w, b, padding=1)
    # Each of the 2 * 5 * 8 * 8 results sums 3 * 3 * 3 products.
    flops = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert forward.flops == {CONVOLUTION: flops}
    numbers = x.numel() + w.numel() + b.numel()
    assert forward.bytes == {CONVOLUTION: 4 * (numbers + y.numel())}
    with Tally() as backward:
        y.backward(gradient)
    # The gradients of the input and of the weights are as many products each; that of the bias has none.
    assert backward.flops[CONVOLUTION] == 2 * flops
    assert backward.bytes[CONVOLUTION] == 4 * (gradient.numel() + x.numel() + w.numel() + numbers)


def test_a_matrix_product_and_a_sum_are_counted_as_by_hand() -> None:
    a, b, c = rand(4, 5), rand(5, 6), rand(4, 6)
    with Tally() as tally:
        a @ b + c
    assert tally.flops == {MATRIX: 2 * 4 * 5 * 6}
    assert tally.bytes == {MATRIX: 4 * (4 * 5 + 5 * 6 + 4 * 6), POINTWISE: 4 * 3 * (4 * 6)}
    assert tally.calls == {MATRIX: 1, POINTWISE: 1}
    assert tally.dtype == torch.float32


@pytest.mark.parametrize(
    ("run", "kind", "numbers"),
    [
        (lambda a, b: a.add_(b), POINTWISE, 3 * 20),  # reads both, writes one
        (lambda a, b: a.copy_(b), COPY, 2 * 20),  # what is overwritten is not read
        (lambda a, b: a.fill_(1.0), COPY, 20),
        (lambda a, b: torch.cat([a, b]), COPY, 2 * 20 + 40),
        (lambda a, b: torch.add(a, b, out=torch.empty(4, 5)), POINTWISE, 3 * 20),  # what is written is not read
        (lambda a, b: a[:1].expand(4, 5) + b, POINTWISE, 5 + 20 + 20),  # an expanded row is there once
        (lambda a, b: torch._foreach_lerp_([a, b], [b, a], 0.5), EMA, 3 * 40),
        (lambda a, b: a.normal_(generator=torch.Generator()), RANDOM, 20),
        (lambda a, b: a.mean(), POINTWISE, 20 + 1),
    ],
)
def test_bytes_are_those_read_and_those_written(
    run: Callable[[Tensor, Tensor], object], kind: str, numbers: int
) -> None:
    a, b = rand(4, 5), rand(4, 5)
    with Tally() as tally:
        run(a, b)
    assert {kind: moved for kind, moved in tally.bytes.items() if moved} == {kind: 4 * numbers}


def test_views_and_empty_tensors_move_nothing() -> None:
    x = rand(4, 6)
    with Tally() as tally:
        x.view(2, 2, 6).transpose(0, 1)[0].unbind()[0].detach().reshape(3, 2)
        torch.empty(100), torch.empty_like(x), x.unsqueeze(0).expand(9, 4, 6)
    assert sum(tally.bytes.values()) == 0 and set(tally.calls) == {OTHER}


def test_bytes_of_other_dtypes_and_of_nothing() -> None:
    assert held_bytes(torch.zeros(3, 5, dtype=torch.uint8)) == 15
    assert held_bytes(torch.zeros(3, 5, dtype=torch.float64)) == 120
    assert held_bytes(torch.zeros(1, 5).expand(7, 5)) == 20
    assert held_bytes(torch.zeros(0, 5)) == 0
    assert held_bytes(torch.zeros(())) == 4


def test_fused_attention_on_the_cpu_is_counted_as_written_out() -> None:
    b, h, n, m, d = 2, 3, 7, 5, 4
    q, k, v = rand(b, h, n, d, grad=True), rand(b, h, m, d, grad=True), rand(b, h, m, d, grad=True)
    product = 2 * b * h * n * m * d
    with Tally() as plain:
        plain_attention(q, k, v, None)
    with Tally() as fused:
        out = scaled_dot_product_attention(q, k, v)
    assert plain.flops == fused.flops == {ATTENTION: 2 * product}
    with Tally() as backward:
        out.backward(rand(b, h, n, d))
    # Four gradients, and the scores again, which were not kept.
    assert backward.flops == {ATTENTION: 5 * product}
    with Tally() as masked:
        scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(b, 1, n, m, dtype=torch.bool), scale=0.3)
    assert masked.flops == {ATTENTION: 2 * product}


def test_without_gradients_the_same_is_counted() -> None:
    x, w, f, q = rand(2, 3, 8, 8), rand(5, 3, 3, 3), rand(4, 8), rand(1, 1, 6, 4)

    def run() -> None:
        linear(conv2d(x, w, padding=1), f)
        scaled_dot_product_attention(q, q, q)
        nn.functional.group_norm(x, 3)

    with Tally() as plain:
        run()
    with torch.inference_mode(), Tally() as quick:
        run()
    # Composed operations arrive whole in inference mode and are taken apart.
    assert plain.flops == quick.flops == {CONVOLUTION: 34560, MATRIX: 2 * 80 * 8 * 4, ATTENTION: 2 * 288}
    assert {kind: quick.bytes[kind] for kind in (CONVOLUTION, ATTENTION, NORM)} == {
        kind: plain.bytes[kind] for kind in (CONVOLUTION, ATTENTION, NORM)
    }


def test_all_flops_are_those_of_torchs_counter() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.SiLU(), nn.Flatten(2), nn.Linear(9, 4), nn.ConvTranspose1d(8, 2, 3)
    )
    x = rand(2, 3, 8, 8)
    with FlopCounterMode(display=False) as torchs:
        net(x).sum().backward()
    with Tally() as ours:
        net(x).sum().backward()
    assert sum(ours.flops.values()) == torchs.get_total_flops() > 0


def test_what_runs_inside_of_something_is_of_its_kind() -> None:
    inside = DATA
    with Tally(lambda: inside) as tally:
        torch.zeros(3) + 1
    assert set(tally.calls) == {DATA}


def test_the_dtype_is_the_one_of_most_flops() -> None:
    a = torch.ones(3, 3)
    with Tally() as tally:
        a @ a
        for _ in range(2):
            a.bfloat16() @ a.bfloat16()
    assert tally.dtype == torch.bfloat16
    assert Tally().dtype is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", CONVOLUTION),
        ("aten::convolution_backward", CONVOLUTION),
        ("aten::addmm", MATRIX),
        ("aten::linear_backward", MATRIX),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", ATTENTION),
        ("aten::_softmax_backward_data", ATTENTION),
        ("aten::baddbmm", ATTENTION),
        ("aten::native_group_norm_backward", NORM),
        ("aten::silu_backward", POINTWISE),
        ("aten::mul_", POINTWISE),
        ("aten::_to_copy", COPY),
        ("aten::embedding_dense_backward", COPY),
        ("aten::zero_", COPY),
        ("aten::normal_", RANDOM),
        ("aten::native_dropout", RANDOM),
        ("aten::_fused_adamw_", OPTIMISER),
        ("aten::_foreach_norm", OPTIMISER),
        ("Optimizer.step#AdamW.step", OPTIMISER),
        ("aten::_foreach_lerp_", EMA),
        ("aten::as_strided", OTHER),
        ("aten::_unsafe_view", OTHER),
        ("autograd::engine::evaluate_function: ConvolutionBackward0", OTHER),
        ("cudaLaunchKernel", OTHER),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind
