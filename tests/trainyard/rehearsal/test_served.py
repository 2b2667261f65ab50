"""How the rehearsal asks a served model."""

import httpx

from trainyard.rehearsal.served import Sent, _send


def test_a_request_is_tried_once_more_at_the_next_task() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "10.0.0.1":
            raise httpx.ConnectError("gone")
        return httpx.Response(200, json={"version": "7"})

    sent = Sent()
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        _send(client, ["http://10.0.0.1/predict", "http://10.0.0.2/predict"], {}, sent)
        assert sent == Sent({"7": 1}, again=1)
        _send(client, ["http://10.0.0.1/predict"], {}, sent)
    assert sent == Sent({"7": 1}, again=1, failed=["ConnectError: gone"])
