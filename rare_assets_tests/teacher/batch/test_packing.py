"""Requests are packed into one file while answers of others come in."""

import asyncio
from types import SimpleNamespace

from rare_assets.teacher.batch import packing


class Endpoint:
    """Lets everything be sent."""

    model = "m"
    dialect = SimpleNamespace(
        version=1, manner=None, body=lambda model, sent, attempts, manner: {"asked": sent}
    )

    def wait(self, _):
        return 0.0

    def take(self, _):
        return object()

    def free(self, _):
        pass


def test_what_is_answered_while_others_are_packed_is_left_out(monkeypatch):
    monkeypatch.setattr(packing, "_AT_ONCE", 1)
    keys = [bytes([number]) * 32 for number in range(3)]
    todo = dict.fromkeys(keys)
    waiting = {key: [SimpleNamespace(sent=key.hex(), made=0, ask=None, key=key)] for key in keys}

    async def pack_beside_an_answer():
        async def answer_comes():
            del todo[keys[1]], waiting[keys[1]]

        other = asyncio.create_task(answer_comes())
        packed = await packing.pack(
            Endpoint(), todo, waiting, max_requests=9, max_bytes=10_000, not_sendable=print
        )
        await other
        return packed

    packed = asyncio.run(pack_beside_an_answer())
    assert set(packed.slots) == {keys[0], keys[2]}
    assert todo == {}
    packed.put_away(Endpoint())
