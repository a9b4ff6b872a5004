from __future__ import annotations

from http import HTTPStatus

from edgeproxy.inbound.api_errors import ApiError


def test_a_refusal_says_for_logs_what_it_says_to_the_client() -> None:
    error = ApiError(HTTPStatus.CONFLICT, "id_taken", "that id is taken", backend_id="a")
    assert str(error) == error.body.error == "that id is taken"
    assert (error.status, error.body.code, error.body.id) == (HTTPStatus.CONFLICT, "id_taken", "a")
