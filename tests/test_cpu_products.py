"""fp32 matrix products stay fp32, whatever library computes them."""

import pytest
import torch

from bigbird_ds.cpu_products import fast_fp32_products

CPU = torch.device("cpu")


@pytest.mark.parametrize("shapes", [((300, 768), (768, 1000)), ((6, 64, 512), (6, 512, 64))])
def test_products_keep_the_digits_of_fp32(shapes):
    a, b = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes)
    exact = a.double() @ b.double()
    with fast_fp32_products(CPU):
        found = a @ b
    assert (found - exact).norm() <= 2e-6 * exact.norm()


def test_the_setting_of_the_process_comes_back_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), fast_fp32_products(CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_the_setting_is_not_changed_if_it_loses_precision(monkeypatch):
    # as on a CPU with matrix units for bf16
    monkeypatch.setattr("bigbird_ds.cpu_products._LARGEST_ERROR", 0.0)
    before = torch.get_float32_matmul_precision()
    with fast_fp32_products(CPU) as exact:
        assert not exact
        assert torch.get_float32_matmul_precision() == before
