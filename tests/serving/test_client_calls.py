"""How the clients call: long lists in parts, of one version; asking again; TLS. One set of expectations of both."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading

import grpc
import numpy as np
import pytest
import trustme

from tests.serving.fake_server import SIGNATURES, STRING, FakeServer, score
from tfmmrank.export.request_error import RequestError
from tfmmrank.serving import AsyncClient, Client, Retry, ServingError, Tls
from tfmmrank.serving.client.answers import InputSpec, Signature
from tfmmrank.serving.client.dialogue import Dialogue
from tfmmrank.serving.client.questions import Target
from tfmmrank.serving.client.ranking_inputs import split_lists
from tfmmrank.serving.client.transport import _why_absent, open_channel
from tfmmrank.serving.protocol import wire
from tfmmrank.serving.server.limits import Gate

WAIT = 30.0  # seconds that nothing here takes


class Awaited:
    """``AsyncClient`` with ``Client``'s face, so that what is expected of both is written once."""

    def __init__(self, *arguments, **options) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = self._loop.run_until_complete(self._make(arguments, options))

    async def _make(self, arguments, options):
        return AsyncClient(*arguments, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *given, **named: self._loop.run_until_complete(method(*given, **named))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self._loop.close()


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def connect(request):
    return request.param


def ids_of(count: int) -> list[str]:
    return [f"i{number}" for number in np.random.default_rng(3).permutation(count)]


def expected_order(ids: list[str]) -> list[str]:
    return sorted(ids, key=lambda item: -score(item.encode()))  # stable, as the client is said to be


# -- long lists -------------------------------------------------------------------------------------------------------


def test_a_long_list_is_asked_in_parts_and_merged(connect):
    ids = [*ids_of(1200), "nobody", "i5"]
    ids[3] = "stranger"
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT, max_candidates=100, in_flight=3) as client:
        ranked = client.rank("red", ids)
        sizes = [len(request.inputs["item_ids"].string_val) for request in server.asked("rank")]
    known = [item for item in ids if item.startswith("i")]
    assert ranked.item_ids == [*expected_order(known), "stranger", "nobody"]  # unknown: as the request has them
    assert ranked.known.tolist() == [True] * len(known) + [False] * 2
    assert ranked.scores[0] == 999
    assert [ids[place] for place in ranked.order] == ranked.item_ids
    assert len(sizes) == 13
    assert sum(sizes) == len(ids)
    assert max(sizes) <= 100


def test_parts_are_in_flight_together_and_no_more_than_said(connect):
    """The first three meet at the server: none is answered before all have come."""
    together = threading.Barrier(3)
    met = []

    def meet(request, context):
        if request.model_spec.signature_name == "rank":
            together.wait(WAIT)
            met.append(1)

    with FakeServer(before=meet) as server:
        with connect(server.address, "m", timeout=WAIT, max_candidates=10, in_flight=3) as client:
            client.rank("red", ids_of(60))
        assert len(met) == 6
        assert server.busiest == 3


def test_a_batch_is_asked_in_parts_of_the_lists_that_reach_so_far(connect):
    lists = [ids_of(25), [], ids_of(7), [*ids_of(11), "nobody"]]
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT, max_candidates=10) as client:
        ranked = client.rank_batch(["a", "b", "c", "d"], lists)
        queries = sorted(b"".join(request.inputs["query"].string_val) for request in server.asked("rank"))
    for ids, found in zip(lists, ranked, strict=True):
        assert found.item_ids == expected_order([i for i in ids if i != "nobody"]) + [i for i in ids if i == "nobody"]
    assert queries == [b"a", b"acd", b"ad"]


@pytest.mark.parametrize(
    ("lengths", "most", "spans"),
    [
        ([5], 5, [(0, 5)]),
        ([6], 5, [(0, 3), (3, 6)]),
        ([2001], 1000, [(0, 667), (667, 1334), (1334, 2001)]),
        ([1], 1, [(0, 1)]),
        ([3, 1], 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_parts_are_of_nearly_equal_size(lengths, most, spans):
    parts = split_lists(lengths, most)
    assert [(part.span.start, min(part.span.stop, max(lengths))) for part in parts] == spans
    assert parts[0].rows == list(range(len(lengths)))
    assert all(part.rows == [b for b, n in enumerate(lengths) if n > part.span.start] for part in parts)


def test_a_list_that_fits_asks_for_no_description(connect):
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT, max_candidates=10) as client:
        client.rank("red", ids_of(10))
        assert len(server.requests) == 1


def test_with_list_context_a_long_list_is_an_error(connect):
    with (
        FakeServer(list_context=True) as server,
        connect(server.address, "m", timeout=WAIT, max_candidates=5) as client,
    ):
        for split in (False, True):
            with pytest.raises(ValueError, match=r"6 candidates .*max_candidates=5.* has list context"):
                client.rank("red", ids_of(6), split=split)
        assert server.asked("rank") == []  # nothing was scored for nothing
        assert len(client.rank("red", ids_of(5))) == 5


def test_a_model_that_does_not_say_must_be_told_of(connect):
    with (
        FakeServer(list_context=None) as server,
        connect(server.address, "m", timeout=WAIT, max_candidates=5) as client,
    ):
        with pytest.raises(ValueError, match=r"does not say whether it has list context .*split=True"):
            client.rank("red", ids_of(6))
        assert client.rank("red", ids_of(6), split=True).item_ids == expected_order(ids_of(6))


# -- one version ------------------------------------------------------------------------------------------------------


class Swap:
    """The server's version from the ``n``-th scored part on, by a plan ``{n: version}``."""

    def __init__(self, plan: dict[int, int]) -> None:
        self.plan, self.count, self.server = plan, 0, None

    def __call__(self, request, context):
        if request.model_spec.signature_name == "rank":
            self.count += 1
            self.server.version = self.plan.get(self.count, self.server.version)


def swapping(plan: dict[int, int], **options) -> FakeServer:
    swap = Swap(plan)
    swap.server = FakeServer(before=swap, **options)
    return swap.server


def test_after_a_swap_between_parts_the_older_versions_are_asked_again(connect):
    with (
        swapping({2: 7}) as server,
        connect(server.address, "m", timeout=WAIT, max_candidates=10, in_flight=1) as client,
    ):
        ranked = client.rank("red", ids_of(40))
        assert ranked.scores[0] == 39 * 7
        assert ranked.scores.tolist() == [7.0 * n for n in reversed(range(40))]  # not one of version 1
        assert len(server.asked("rank")) == 4 + 2  # the first two came from version 1
        assert len(server.asked("describe")) == 2  # and so had the description


def test_after_a_rollback_between_parts_all_are_of_the_older_version(connect):
    with swapping({1: 7, 3: 1}) as server:
        with connect(server.address, "m", timeout=WAIT, max_candidates=10, in_flight=1) as client:
            ranked = client.rank("red", ids_of(40))
        assert ranked.scores.tolist() == [float(n) for n in reversed(range(40))]


def test_versions_that_answer_in_turn_are_an_error(connect):
    plan = {count: 1 + count % 2 for count in range(1, 200)}
    with swapping(plan) as server, connect(server.address, "m", timeout=WAIT, max_candidates=10, in_flight=1) as client:
        with pytest.raises(ServingError, match="versions 1 and 2 answer in turn") as caught:
            client.rank("red", ids_of(50))
        assert caught.value.code == "ABORTED"
        assert len(server.asked("rank")) < 50  # it did not ask for ever


def test_a_new_version_with_list_context_is_noticed(connect):
    """The description is from version 1, the parts are from 2: what 1 said does not hold for them."""

    def swap(request, context):
        if request.model_spec.signature_name == "rank":
            server.version, server.list_context = 2, True

    noticed = pytest.raises(ValueError, match="has list context")
    with FakeServer(before=swap) as server, connect(server.address, "m", max_candidates=10) as client, noticed:
        client.rank("red", ids_of(20), timeout=WAIT)


def test_version_and_label_are_in_the_requests(connect):
    with FakeServer() as server:
        for options in ({"version": 3}, {"label": "canary"}, {}):
            with connect(server.address, "m", timeout=WAIT, **options) as client:
                client.rank("red", ["i1"])
        specs = [request.model_spec for request in server.requests]
    assert [(spec.version.value, spec.version_label) for spec in specs] == [(3, ""), (0, "canary"), (0, "")]
    assert [spec.HasField("version") for spec in specs] == [True, False, False]
    with pytest.raises(ValueError, match='version=3 and label="canary" exclude each other'):
        Target("m", 3, "canary")


# -- asking again -----------------------------------------------------------------------------------------------------


def failing(times: int, code: grpc.StatusCode, message: str = "not now"):
    left = [times]

    def before(request, context):
        if left[0]:
            left[0] -= 1
            context.abort(code, message)

    return before


# As TensorFlow Serving says it, and the embedded server after it.
FULL = (
    "The batch scheduling queue to which this task was submitted is full; currently 8 batches enqueued and "
    "max_enqueued_batches is 8"
)


def test_a_full_queue_is_asked_a_few_times(connect):
    with FakeServer(before=failing(99, grpc.StatusCode.UNAVAILABLE, FULL)) as server:
        told = r"more requests than it can answer \(The batch .*; asked 3 times\)"
        with (
            connect(server.address, "m", timeout=WAIT, retry=Retry(first=0.001, when_full=2)) as client,
            pytest.raises(ServingError, match=told) as caught,
        ):
            client.rank("red", ["i1"])
        assert caught.value.code == "UNAVAILABLE"
        assert "no model server answers" not in str(caught.value)
        assert len(server.requests) == 3


def test_a_queue_that_is_full_for_a_moment_is_waited_for(connect):
    with FakeServer(before=failing(2, grpc.StatusCode.UNAVAILABLE, FULL)) as server:
        with connect(server.address, "m", timeout=WAIT, retry=Retry(first=0.001)) as client:
            assert client.rank("red", ["i1", "i2"]).item_ids == ["i2", "i1"]
        assert len(server.requests) == 3


def test_a_full_queue_is_not_waited_for_beyond_the_deadline(connect):
    with FakeServer(before=failing(99, grpc.StatusCode.UNAVAILABLE, FULL)) as server:
        retry = Retry(first=1e9, most=1e9)
        with (
            connect(server.address, "m", timeout=WAIT, retry=retry) as client,
            pytest.raises(ServingError, match="asked 1 times"),
        ):
            client.rank("red", ["i1"])


def test_a_server_that_shuts_down_is_one_that_is_away(connect):
    """It is asked until it is gone, and until another has come."""
    gate = Gate()
    gate.close()
    with pytest.raises(RequestError) as closed, gate.enter():
        pass
    with FakeServer(before=failing(9, grpc.StatusCode[closed.value.code], str(closed.value))) as server:
        with connect(server.address, "m", timeout=WAIT, retry=Retry(first=0.001, most=0.001)) as client:
            assert client.rank("red", ["i1", "i2"]).item_ids == ["i2", "i1"]
        assert len(server.requests) == 10


def test_unavailable_is_asked_again(connect):
    with FakeServer(before=failing(3, grpc.StatusCode.UNAVAILABLE)) as server:
        with connect(server.address, "m", timeout=WAIT, retry=Retry(first=0.001)) as client:
            assert client.rank("red", ["i1", "i2"]).item_ids == ["i2", "i1"]
        assert len(server.requests) == 4


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "INTERNAL", "ABORTED", "UNKNOWN"])
def test_nothing_else_is_asked_again(connect, code):
    with FakeServer(before=failing(9, grpc.StatusCode[code])) as server:
        with (
            connect(server.address, "m", timeout=WAIT) as client,
            pytest.raises(ServingError, match="not now") as caught,
        ):
            client.rank("red", ["i1"])
        assert caught.value.code == code
        assert len(server.requests) == 1


def test_without_retry_unavailable_is_an_error(connect):
    before = failing(1, grpc.StatusCode.UNAVAILABLE)
    with FakeServer(before=before) as server, connect(server.address, "m", timeout=WAIT, retry=None) as client:
        with pytest.raises(ServingError, match="not now") as caught:
            client.rank("red", ["i1"])
        assert caught.value.code == "UNAVAILABLE"
        assert len(client.rank("red", ["i1"])) == 1


def test_a_restart_within_the_deadline_loses_nothing(connect):
    """The server ends in the middle of a request, is away for many of the client's attempts, and comes back."""
    arrived = threading.Event()

    def hang(request, context):
        arrived.set()
        threading.Event().wait(0.2)

    first = FakeServer()
    with connect(first.address, "m", timeout=WAIT) as client:
        client.rank("red", ["i1"])
        first.before = hang
        second = []

        def restart():
            arrived.wait(WAIT)
            first.stop()
            threading.Event().wait(0.5)
            second.append(FakeServer(port=first.port))

        thread = threading.Thread(target=restart)
        thread.start()
        assert client.rank("red", ["i1", "i2"]).item_ids == ["i2", "i1"]
        thread.join()
        assert len(second[0].requests) == 1
        second[0].stop()


def test_a_server_that_never_comes_is_told_at_the_deadline(connect):
    told = r"tfmmrank serve.* waited 0\.5 s for it\) \[UNAVAILABLE\]"
    with connect("127.0.0.1:1", "m", timeout=0.5) as client, pytest.raises(ServingError, match=told):
        client.status()


def test_a_calls_own_timeout_counts_before_the_clients(connect):
    done = threading.Event()
    before = lambda *_: done.wait(WAIT)  # noqa: E731
    with FakeServer(before=before) as server, connect(server.address, "m", timeout=WAIT) as client:
        client.metadata()
        with pytest.raises(ServingError, match=r"no answer within 0\.2 s") as caught:
            client.rank("red", ["i1"], timeout=0.2)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        done.set()
        for timeout in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="expected seconds above 0"):
                client.rank("red", ["i1"], timeout=timeout)


def test_waits_double_below_the_limit_and_are_drawn_from_all_of_it():
    retry, rng = Retry(first=0.1, most=1.0), random.Random(4)
    waits = np.array([[retry.wait(failures, rng) for failures in (1, 2, 3, 4, 5, 10_000)] for _ in range(2000)])
    np.testing.assert_allclose(waits.max(axis=0), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0], rtol=0.01)
    np.testing.assert_allclose(waits.mean(axis=0), [0.05, 0.1, 0.2, 0.4, 0.5, 0.5], rtol=0.05)


# -- signatures -------------------------------------------------------------------------------------------------------

_SEASONAL = ({**SIGNATURES["rank"][0], "season": (STRING, [-1])}, SIGNATURES["rank"][1])


def strict(server):
    """Has it refuse requests with other inputs than the signature's, as servers do."""

    def before(request, context):
        expected = server.signatures[request.model_spec.signature_name][0]
        if set(request.inputs) != set(expected):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")

    server.before = before


def test_a_swap_that_changes_the_inputs_fails_no_call(connect):
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT) as client:
        strict(server)
        assert client.rank("red", ["i1"]).item_ids == ["i1"]
        server.signatures["rank"] = _SEASONAL
        assert client.rank("red", ["i1"]).item_ids == ["i1"]  # refused, and sent anew with the season missing
        assert client.rank("red", ["i1"], season="summer").item_ids == ["i1"]
        server.signatures["rank"] = SIGNATURES["rank"]
        assert client.rank_batch(["red"], [["i1"]])[0].item_ids == ["i1"]
        assert server.metadata_requests == 3


def test_a_column_that_a_swap_brings_can_be_sent_at_once(connect):
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT) as client:
        strict(server)
        client.rank("red", ["i1"])
        with pytest.raises(ValueError, match='no context column "season"'):
            client.rank("red", ["i1"], season="summer")
        server.signatures["rank"] = _SEASONAL
        assert client.rank("red", ["i1"], season="summer").item_ids == ["i1"]


@pytest.mark.parametrize(
    ("code", "asked"), [("INVALID_ARGUMENT", 2), ("RESOURCE_EXHAUSTED", 1), ("INTERNAL", 1), ("UNAVAILABLE", 1)]
)
def test_signatures_are_asked_anew_only_where_they_may_be_the_reason(connect, code, asked):
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT, retry=None) as client:
        client.rank("red", ["i1"])
        server.before = failing(1, grpc.StatusCode[code])
        with pytest.raises(ServingError, match="not now") as caught:
            client.rank("red", ["i1"])
        assert caught.value.code == code
        assert client.rank("red", ["i1"]).item_ids == ["i1"]
        assert server.metadata_requests == asked


class Forgetful(Dialogue):
    """As if another thread forgot the signatures whenever they are known."""

    def __setattr__(self, name, value):
        super().__setattr__(name, None if name == "_signatures" else value)


def test_signatures_belong_to_the_call_that_asked_for_them():
    steps = Forgetful(Target("m"), 10).rank("red", ["i1"], False, {})
    next(steps)
    (asked,) = steps.send([{"rank": Signature({"query": InputSpec("string", (-1,))}, {}, "")}])
    assert wire.PredictRequest.FromString(asked.message).inputs["query"].string_val == [b"red"]


# -- channels and TLS -------------------------------------------------------------------------------------------------


def test_messages_are_unbounded_and_keepalive_is_said():
    seen = {}

    class Module:
        @staticmethod
        def insecure_channel(address, options):
            seen.update(options)

    open_channel(Module, "a:1", None, keepalive=7.5)
    assert seen["grpc.max_receive_message_length"] == seen["grpc.max_send_message_length"] == -1
    assert seen["grpc.keepalive_time_ms"] == 7500
    seen.clear()
    open_channel(Module, "a:1", None, keepalive=None)
    assert not any("keepalive" in name for name in seen)


def test_messages_above_four_megabytes_go_both_ways(connect):
    numbers = np.arange(1_100_000, dtype=np.float32)
    with FakeServer() as server, connect(server.address, "m", timeout=WAIT) as client:
        np.testing.assert_array_equal(client.predict("echo", {"x": numbers})["x"], numbers)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """PEM files: the authority's, the client's, another authority's, and what is none."""
    folder = tmp_path_factory.mktemp("pem")
    ours, theirs = trustme.CA(), trustme.CA()
    server, client, stranger = ours.issue_cert("127.0.0.1"), ours.issue_cert("client"), theirs.issue_cert("client")
    ours.cert_pem.write_to_path(folder / "ca.pem")
    theirs.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, certificate in (("server", server), ("client", client), ("stranger", stranger)):
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / "text.pem").write_text("hello")
    return folder


def server_credentials(pem, mutual: bool):
    pair = ((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], (pem / "ca.pem").read_bytes(), require_client_auth=mutual)


def test_tls(connect, pem):
    with FakeServer(credentials=server_credentials(pem, mutual=False)) as server:
        with connect(server.address, "m", timeout=WAIT, tls=Tls(pem / "ca.pem")) as client:
            assert len(client.rank("red", ["i1"])) == 1
        for tls, told in (
            (Tls(pem / "other-ca.pem"), "TLS with the server there fails"),
            (None, "hangs up"),
        ):
            with connect(server.address, "m", timeout=WAIT, tls=tls, retry=None) as client:
                with pytest.raises(ServingError, match=told) as caught:
                    client.rank("red", ["i1"])
                assert caught.value.code == "UNAVAILABLE"


def test_mutual_tls(connect, pem):
    def ask(name):
        mine = (pem / f"{name}.pem", pem / f"{name}.key") if name else ()
        with connect(server.address, "m", timeout=WAIT, tls=Tls(pem / "ca.pem", *mine), retry=None) as client:
            return client.rank("red", ["i1"]).item_ids

    with FakeServer(credentials=server_credentials(pem, mutual=True)) as server:
        assert ask("client") == ["i1"]
        for name in ("stranger", ""):
            with pytest.raises(ServingError):
                ask(name)


def test_wrong_tls_files_are_named(pem, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        Tls(tmp_path / "nowhere.pem")
    assert caught.value.filename == str(tmp_path / "nowhere.pem")
    with pytest.raises(ValueError, match=r"text\.pem: holds no certificate"):
        Tls(pem / "text.pem")
    with pytest.raises(ValueError, match=r"text\.pem and .*client\.key: are no certificate with its private key"):
        Tls(pem / "ca.pem", pem / "text.pem", pem / "client.key")
    with pytest.raises(ValueError, match=r"client\.pem and .*server\.key: are no certificate with its private key"):
        Tls(pem / "ca.pem", pem / "client.pem", pem / "server.key")
    with pytest.raises(ValueError, match="got a certificate and no key"):
        Tls(certificate=pem / "client.pem")
    with pytest.raises(ValueError, match="got a key and no certificate"):
        Tls(key=pem / "client.key")


def test_both_clients_have_the_same_face():
    def face(cls):
        return {
            name: list(inspect.signature(method).parameters.items())
            for name, method in vars(cls).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    sync, awaited = face(Client), face(AsyncClient)
    assert set(sync) == set(awaited)
    for name, parameters in sync.items():
        assert [(n, p.kind, p.default) for n, p in parameters] == [(n, p.kind, p.default) for n, p in awaited[name]], (
            name
        )
    assert all(inspect.iscoroutinefunction(getattr(AsyncClient, name)) for name in awaited)


@pytest.mark.parametrize("options", [{"max_candidates": 0}, {"in_flight": 0}])
def test_numbers_below_one_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is 0; expected at least 1"):
        Client("a:1", "m", **options)


def test_an_address_without_a_port_is_none():
    with pytest.raises(ValueError, match='address is "localhost"; expected HOST:PORT, such as localhost:8500'):
        Client("localhost", "m")


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Socket closed",
            "does it ask for TLS",
        ),
        ("failed to connect to all addresses; last error: UNKNOWN: SETTINGS frame", "is it the REST port"),
        ("Stream removed (Socket closed)", "went away before it answered"),  # killed with the request
        (
            "failed to connect to all addresses; last error: UNKNOWN: Connection refused",
            "no model server answers there",
        ),
    ],
)
def test_why_nobody_answers(details, told):
    assert told in _why_absent(details)
