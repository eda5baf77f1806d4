"""Drives a server with the gRPC client `aetcd` (PyPI) and asserts what it returns: clients.py HOST:PORT.

The client is generated from etcd's proto files by Google's gRPC for Python, which shares no line with Go's.
"""

import asyncio
import io
import sys

import aetcd


async def keys(client):
    assert await client.get(b"py/none") is None
    first = await client.put(b"py/a", b"1")
    second = await client.put(b"py/a", b"2", prev_kv=True)
    assert second.prev_kv.value == b"1", second
    assert second.header.revision == first.header.revision + 1
    got = await client.get(b"py/a")
    assert (got.key, got.value, got.version) == (b"py/a", b"2", 2), got
    assert got.create_revision == first.header.revision and got.mod_revision == second.header.revision
    for name in (b"py/b", b"py/c"):
        await client.put(name, name)
    found = await client.get_prefix(b"py/", sort_order="descend", sort_target="key")
    assert [kv.key for kv in found] == [b"py/c", b"py/b", b"py/a"], list(found)
    found = await client.get_range(b"py/a", b"py/c")
    assert [kv.key for kv in found] == [b"py/a", b"py/b"], list(found)
    found = await client.get_prefix(b"py/", keys_only=True)
    assert [kv.value for kv in found] == [b"", b"", b""]
    assert await client.replace(b"py/a", b"2", b"3")
    assert not await client.replace(b"py/a", b"2", b"4")
    gone = await client.delete(b"py/a", prev_kv=True)
    assert gone.prev_kv.value == b"3", gone
    assert await client.get(b"py/a") is None
    assert (await client.delete_prefix(b"py/")).deleted == 2


async def transactions(client):
    success, responses = await client.transaction(
        compare=[client.transactions.version(b"py/t") == 0],
        success=[client.transactions.put(b"py/t", b"1"), client.transactions.get(b"py/t")],
        failure=[client.transactions.delete(b"py/t")],
    )
    assert success and responses[1][0][0] == b"1", responses
    success, _ = await client.transaction(
        compare=[client.transactions.value(b"py/t") == b"other"],
        success=[],
        failure=[client.transactions.delete(b"py/t")],
    )
    assert not success and await client.get(b"py/t") is None


async def watches(client):
    watch = await client.watch_prefix(b"py/w", prev_kv=True)

    async def changes():
        await client.put(b"py/w1", b"1")
        await client.put(b"py/w1", b"2")
        await client.delete(b"py/w1")

    task = asyncio.create_task(changes())
    seen = []
    async for event in watch:
        seen.append((event.kind, event.kv.value, event.prev_kv.value if event.prev_kv else b""))
        if len(seen) == 3:
            break
    await task
    await watch.cancel()
    assert seen == [("PUT", b"1", b""), ("PUT", b"2", b"1"), ("DELETE", b"", b"2")], seen


async def leases(client):
    lease = await client.lease(60)
    await client.put(b"py/l", b"v", lease=lease)
    info = await client.get_lease_info(lease.id, keys=True)
    assert info.grantedTTL == 60 and list(info.keys) == [b"py/l"], info
    assert (await client.refresh_lease(lease.id)).TTL == 60
    await lease.revoke()
    assert await client.get(b"py/l") is None


async def locks(client):
    first, second = client.lock(b"py/lock", ttl=60), client.lock(b"py/lock", ttl=60)
    assert await first.acquire()
    assert not await second.acquire(timeout=1)
    assert await first.release()
    assert await second.acquire(timeout=5)
    assert await second.release()


async def maintenance(client):
    status = await client.status()
    assert status.version.startswith("3."), status.version
    await client.defragment()
    assert await client.hash() is not None
    head = (await client.put(b"py/m", b"1")).header.revision
    await client.compact(head, physical=True)
    await client.delete(b"py/m")
    try:
        await client.put(b"", b"1")
        raise AssertionError("a put without a key was taken")
    except aetcd.ClientError as error:
        assert "key is not provided" in str(error), error


async def main(address):
    host, port = address.rsplit(":", 1)
    async with aetcd.Client(host=host, port=int(port), timeout=10) as client:
        for part in (keys, transactions, watches, leases, locks, maintenance):
            try:
                await asyncio.wait_for(part(client), 30)
            except Exception as error:
                print(f"FAILED python {part.__name__}: {type(error).__name__}: {error}")
                raise


asyncio.run(main(sys.argv[1]))
