"""An AWS account of the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.deploy.account import Client, account, make_network


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Makes clients of moto; programs under test find it by their environment."""
    with account(tmp_path_factory.mktemp("aws") / "none") as client:
        yield client


@pytest.fixture(scope="module")
def network(aws: Client) -> dict[str, str]:
    """A VPC with two subnets, and the parameters that name them."""
    return make_network(aws)
