"""Programs that people have run without their servers: queued, run in a container of their own.

``asked`` says what may be asked, ``records`` is what the store keeps and each move of it,
``keeper`` the hub's loop, ``attempt`` what one attempt is made of, ``output`` what it has printed,
``yielding`` which preemptible ones make room, ``beside`` the hub's servers and jobs as one.
"""
