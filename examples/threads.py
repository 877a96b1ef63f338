"""
Work off orders in threads, without asyncio: what is due, and what comes.

    DATABASE_URL=postgresql://localhost/postgres python threads.py

Each order is a notification on the channel ``orders``; three threads share them. Prices are kept
by a handler, which reads them anew wherever it may have missed something. Then, in psql:
``NOTIFY orders, '42'`` or ``NOTIFY prices, 'tea=310'``. Ctrl-C ends it.
Without DATABASE_URL, PGHOST and the like say where the server is.
"""

import os
import threading

from asyncnotify import BlockingListener, BlockingStream, Gap, Notification

WORKERS = 3

listener = BlockingListener(os.environ.get("DATABASE_URL"))
prices: dict[str, int] = {}


def read_prices(gap: Gap) -> None:
    """Forget what may be wrong; a real program would read its table here."""
    prices.clear()
    print(f"prices read anew: {gap.reason}")


@listener.on("prices", resync=read_prices)
def on_price(n: Notification[str]) -> None:
    """Keep a price. Runs in a worker thread, and may block."""
    name, _, cents = n.payload.partition("=")
    prices[name] = int(cents)
    print(f"{name} costs {cents}")


def work(orders: BlockingStream[Notification[str]]) -> None:
    """Take orders until there will be no more."""
    for order in orders:
        print(f"order {order.payload} is done; {len(prices)} prices are known")


def main() -> None:
    """Serve until Ctrl-C."""
    with listener, listener.stream("orders") as orders:
        workers = [threading.Thread(target=work, args=(orders,)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        print("waiting for orders")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            orders.close()  # the threads end
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
