"""Networks of an engine, in the states that a real one gets into by chance alone."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from testkit.cluster.containers import remove_network


class Network:
    """Cannot be removed, for an error's reason; ``inside`` is what the engine shows in it."""

    def __init__(self, error: APIError | None = None, inside: dict[str, object] | None = None) -> None:
        self._error = error
        self._inside = inside or {}
        self.attrs: dict[str, Any] = {}
        self.removed = False

    def remove(self) -> None:
        if self._error is not None:
            raise self._error
        self.removed = True

    def reload(self) -> None:
        self.attrs = {"Containers": self._inside}


def answered(status: HTTPStatus, kind: type[APIError] = APIError) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind("the engine does not do it", response=response)


def test_a_network_is_removed() -> None:
    network = Network()
    remove_network(network)
    assert network.removed


def test_one_that_is_gone_is_no_error() -> None:
    remove_network(Network(answered(HTTPStatus.NOT_FOUND, NotFound)))


def test_one_with_a_container_that_is_counted_and_not_there_is_left() -> None:
    remove_network(Network(answered(HTTPStatus.FORBIDDEN)))


@pytest.mark.parametrize(
    "network",
    [
        Network(answered(HTTPStatus.FORBIDDEN), {"a": {}}),
        Network(answered(HTTPStatus.INTERNAL_SERVER_ERROR)),
    ],
    ids=["something in it", "another reason"],
)
def test_what_else_is_in_the_way_is_told(network: Network) -> None:
    with pytest.raises(APIError):
        remove_network(network)
