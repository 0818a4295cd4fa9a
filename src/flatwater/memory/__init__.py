"""Instruments for the memory of Python processes, this one and others.

Nothing is imported here: the agent runs inside foreign programs, so each part says for itself what it needs, and the
heap walker (:mod:`flatwater.memory.heap`) needs only the standard library.
"""
