"""What starts runs by itself, and external events."""

from __future__ import annotations

from flatwater.server.route import Table
from flatwater.server.service import Service
from flatwater.server.type.base import Id, Page, Paging, number, page_of, shown
from flatwater.server.type.trigger import Delivered, Event, EventInput, EventQuery, Trigger, TriggerInput
from flatwater.store import event as events
from flatwater.store import trigger as triggers

table = Table("triggers")


@table.add("GET", "/api/triggers")
async def list_triggers(service: Service, query: Paging) -> Page[Trigger]:
    """The triggers, by id."""
    found = await service.store.read(triggers.page, query.cursor or "", query.limit + 1)
    return page_of(found, query.limit, _info, lambda row: row.id)


@table.add("POST", "/api/triggers", status=201, errors=(404,))
async def save_trigger(service: Service, body: TriggerInput) -> Trigger:
    """Create a trigger, or replace the one of the same id."""
    saved = await service.engine.triggers.save(
        body.id,
        body.definition_id,
        body.kind,
        body.spec,
        inputs=body.inputs,
        priority=body.priority,
        enabled=body.enabled,
        max_pending=body.max_pending,
    )
    return _info(saved)


@table.add("DELETE", "/api/triggers/{trigger_id}", status=204, errors=(404,))
async def delete_trigger(service: Service, trigger_id: Id) -> None:
    """Delete a trigger; runs that it has started go on."""
    await service.store.writer.call(triggers.delete, trigger_id)


@table.add("POST", "/api/events", errors=(404, 409))
async def publish_event(service: Service, body: EventInput) -> Delivered:
    """Tell an external event: blocks that wait for it go on, triggers for it start runs."""
    service.refuse_when_draining()
    delivery = await service.engine.publish(body.name, body.data)
    return Delivered(delivery.delivered, delivery.started)


@table.add("GET", "/api/events")
async def list_events(service: Service, query: EventQuery) -> Page[Event]:
    """The external events, newest first."""
    found = await service.store.read(events.page, query.name, number(query.cursor), query.limit + 1)
    return page_of(found, query.limit, _event, lambda row: row.id)


def _event(row: events.Event) -> Event:
    return Event(row.id, row.at, row.name, shown(row.data))


def _info(row: triggers.Trigger) -> Trigger:
    return Trigger(
        id=row.id,
        definition_id=row.definition_id,
        kind=row.kind,
        spec=row.spec,
        inputs=shown(row.inputs),
        priority=row.priority,
        enabled=bool(row.enabled),
        max_pending=row.max_pending,
        next_at=row.next_at,
        last_at=row.last_at,
        last_run_id=row.last_run_id,
    )
