"""What goes over the wire. ``/openapi.json`` is generated from these structs; times are seconds since the epoch (UTC).

JSON that the store keeps as text (inputs, outputs, variables) passes through undecoded (:class:`msgspec.Raw`).
"""
