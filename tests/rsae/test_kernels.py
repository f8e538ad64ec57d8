"""Every kernel against the plain reference in float64: values, gradients, shapes that do not fit the tiles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsae.rational import kernels
from rsae.rational.kernels import blocked, cpu, cuda, reference
from rsae.rational.kernels.reference import Shape

SHAPES = [
    Shape(pairs=1),
    Shape(pairs=4),
    Shape(p=3, q=2),
    Shape(p=9, q=8, absolute=1),
    Shape(p=5, q=4, absolute=2),
]


def blocked_evaluate(h, parameters, shape):
    return blocked.blocked(lambda h, p: reference.evaluate(h, p, shape), h, parameters)


def triton_evaluate(h, parameters, shape):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return cuda.evaluate(h.to(device), parameters.to(device), shape).cpu()


KERNELS = {"cpu": cpu.evaluate, "triton": triton_evaluate, "blocked": blocked_evaluate}


def problem(shape, rows, columns, seed=0):
    """Pre-activations, parameters [P, F] with denominators well away from 0, and a weight of the output."""
    torch.manual_seed(seed)
    if shape.pairs:
        residues, u = torch.randn(2 + 2 * shape.pairs, columns), torch.rand(shape.pairs, columns)
        r = torch.cat([residues, u, torch.rand(shape.pairs, columns) + 0.1])
    else:
        b = (
            torch.rand(shape.q, columns)
            if shape.absolute == 1
            else 0.6 / shape.q * (torch.rand(shape.q, columns) - 0.5)
        )
        r = torch.cat([torch.randn(shape.p + 1, columns), b])
    scales = torch.rand(2, columns) + 0.5
    return 2 * torch.rand(rows, columns) - 1, torch.cat([r, scales]), torch.randn(rows, columns)


def value_and_gradients(function, h, parameters, weight, shape):
    h, parameters = h.clone().requires_grad_(), parameters.clone().requires_grad_()
    value = function(h, parameters, shape)
    return value.detach(), *torch.autograd.grad((value * weight).sum(), (h, parameters))


def assert_agree(got, want, tolerance):
    """Within `tolerance` of the largest entry of each row (of the tensor, where rows are short and may cancel)."""
    for a, b in zip(got, want, strict=True):
        scale = b.abs().amax(-1, keepdim=True) if b.shape[1] >= 30 else b.abs().max()
        assert ((a.double() - b).abs() <= tolerance * scale.clamp_min(1e-3)).all()


def test_the_cpu_kernel_compiles_here():
    """Needs a C++ compiler, as the README says; without this test the next would be silent about a broken build."""
    assert cpu.available(torch.zeros(2, 2), SHAPES[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (33, 70), (5, 67)])
def test_coefficients_shared_by_all_latents_take_a_way_of_their_own(shape, rows, columns):
    h, parameters, _ = problem(shape, rows, columns)
    parameters[:-2] = parameters[:-2, :1]  # the scales stay one a latent
    got = cpu.evaluate(h, parameters, shape)
    assert_agree([got], [reference.evaluate(h.double(), parameters.double(), shape)], 1e-5)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_far_outside_the_design_interval(shape):
    """Pre-activations reach 1000 times a typical one; nothing overflows long after that."""
    h, parameters, _ = problem(shape, 64, 32)
    h = h * 10.0 ** torch.linspace(0, 15, 64)[:, None]
    got = cpu.evaluate(h, parameters, shape)
    want = reference.evaluate(h.double(), parameters.double(), shape)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (33, 70), (1, 1), (300, 5)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_gradients_are_the_references(kernel, shape, rows, columns):
    if kernel == "triton":
        pytest.importorskip("triton", reason="there is no Triton for this platform")
        if rows == 300 and not torch.cuda.is_available():
            pytest.skip("slow in the interpreter")
    h, parameters, weight = problem(shape, rows, columns)
    want = value_and_gradients(reference.evaluate, h.double(), parameters.double(), weight.double(), shape)
    got = value_and_gradients(KERNELS[kernel], h, parameters, weight, shape)
    assert_agree(got, want, 1e-5)


@given(
    st.integers(0, 2**31), st.sampled_from(SHAPES), st.integers(1, 40), st.integers(1, 140), st.integers(1, 3)
)
@settings(max_examples=40, deadline=None)
def test_cpu_kernel_at_any_size_and_thread_count(seed, shape, rows, columns, threads):
    h, parameters, weight = problem(shape, rows, columns, seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = value_and_gradients(cpu.evaluate, h, parameters, weight, shape)
    finally:
        torch.set_num_threads(before)
    want = value_and_gradients(reference.evaluate, h.double(), parameters.double(), weight.double(), shape)
    assert_agree(got, want, 3e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradcheck_of_the_reference(shape):
    h, parameters, _ = (x.double() for x in problem(shape, 4, 3))
    inputs = (h.requires_grad_(), parameters.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, p: reference.evaluate(h, p, shape), inputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16(shape):
    """The kernel computes in float32: only its input and its output are rounded."""
    h, parameters, weight = problem(shape, 40, 33)
    h, weight = h.bfloat16(), weight.bfloat16()
    want = value_and_gradients(reference.evaluate, h.double(), parameters.double(), weight.double(), shape)
    value, grad_h, grad_parameters = value_and_gradients(cpu.evaluate, h, parameters, weight, shape)
    assert value.dtype == grad_h.dtype == torch.bfloat16
    torch.testing.assert_close(value.double(), want[0], rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(grad_h.double(), want[1], rtol=2**-8, atol=1e-6)
    assert_agree([grad_parameters], [want[2]], 3e-5)


def test_parameters_with_one_column_serve_all_latents():
    h, parameters, weight = problem(SHAPES[1], 20, 30)
    shared = parameters[:, :1]
    want = value_and_gradients(reference.evaluate, h.double(), shared.double(), weight.double(), SHAPES[1])
    got = value_and_gradients(kernels.evaluate, h, shared, weight, SHAPES[1])
    assert_agree(got, want, 3e-5)


def test_only_the_input_is_saved():
    saved = []
    h, parameters, _ = problem(SHAPES[1], 21, 30)
    h.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape) or x, lambda x: x):
        cpu.evaluate(h, parameters, SHAPES[1])
    assert saved.count(h.shape) == 1


def test_without_a_compiler_the_blocked_evaluation_serves(monkeypatch):
    cpu._library.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    h, parameters, _ = problem(SHAPES[0], 4, 3)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        value = kernels.evaluate(h, parameters, SHAPES[0])
    cpu._library.cache_clear()
    torch.testing.assert_close(value, reference.evaluate(h, parameters, SHAPES[0]))


def test_a_compiler_that_fails_is_told(monkeypatch, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'unknown option -march=native' >&2\nexit 1\n")
    broken.chmod(0o755)
    cpu._library.cache_clear()
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="unknown option -march=native"):
        assert not cpu.available(torch.zeros(2, 2), SHAPES[0])
    cpu._library.cache_clear()
