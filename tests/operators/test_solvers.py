import torch

from medrecon.operators.solvers import conjugate_gradient, largest_eigenvalue, solve_normal


def hermitian(n, batch, seed=0):
    a = torch.randn(batch, n, n, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    return a @ a.mH + 0.5 * torch.eye(n)


def random_vectors(*shape, seed=1):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def times(matrix):
    return lambda x: (matrix @ x[..., None])[..., 0]


def test_conjugate_gradient_solves_a_batch():
    matrix, b = hermitian(6, 4), random_vectors(4, 6)
    result = conjugate_gradient(times(matrix), b, tol=1e-12)
    torch.testing.assert_close(result.solution, torch.linalg.solve(matrix, b))
    assert bool((result.residual < 1e-11).all())


def test_samples_do_not_see_each_other():
    matrix, b = hermitian(20, 3), random_vectors(3, 20)
    b[1] *= 1e6
    b[2] = 0
    together = conjugate_gradient(times(matrix), b, tol=1e-3)
    for index in range(3):
        alone = conjugate_gradient(times(matrix[index : index + 1]), b[index : index + 1], tol=1e-3)
        torch.testing.assert_close(together.solution[index], alone.solution[0], rtol=1e-4, atol=1e-5)
        assert together.iterations[index] == alone.iterations[0]
    assert together.iterations[2] == 0
    assert together.solution[2].abs().max() == 0


def test_starts_from_the_solution():
    matrix, b = hermitian(6, 2), random_vectors(2, 6)
    result = conjugate_gradient(times(matrix), b, initial=torch.linalg.solve(matrix, b))
    assert result.iterations.tolist() == [0, 0]


def test_singular_system_gives_the_minimum_norm_solution():
    diagonal = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    result = conjugate_gradient(lambda x: diagonal * x, diagonal * 3)
    torch.testing.assert_close(result.solution, torch.tensor([[3.0, 3.0, 0.0]], dtype=torch.float64))


def test_implicit_gradients():
    matrix, b = hermitian(5, 2), random_vectors(2, 5).requires_grad_()
    weight = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)

    def solve(b, weight, shift):
        return solve_normal(times(matrix), b, weight=weight, shift=shift, tol=1e-14)

    assert torch.autograd.gradcheck(solve, (b, weight, shift))
    assert torch.autograd.gradgradcheck(solve, (b, weight, shift))


def test_largest_eigenvalue():
    matrix = hermitian(6, 2)
    value = largest_eigenvalue(times(matrix), random_vectors(2, 6), max_iter=2000, tol=1e-10)
    torch.testing.assert_close(value.double(), torch.linalg.eigvalsh(matrix)[:, -1], rtol=1e-5, atol=0)
