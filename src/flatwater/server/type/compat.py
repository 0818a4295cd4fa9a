"""Shapes of the known systems' calls; unknown fields are ignored, as they are there."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from msgspec import Meta, Struct

from flatwater.server.type.base import MAX_ITEMS, Id

T = TypeVar("T")

MAX_PAGE = 20
"""Page numbers beyond need a walk over all pages before: our own API has cursors."""


class Envelope(Struct, Generic[T], frozen=True):
    data: T
    code: int = 200
    msg: str = "Success"


class Order(Struct, frozen=True, kw_only=True, rename="camel"):
    """``taskId`` or ``taskLabel`` names the definition; ``inputParams`` is an object, or one as JSON text.

    ``taskRecordId``, chosen by the caller, or ``outOrderNo`` make a second call the same run.
    """

    task_id: Id | None = None
    task_label: Id | None = None
    task_record_id: Id | None = None
    out_order_no: Id | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    input_params: dict[str, Any] | str | None = None


class Ordered(Struct, frozen=True, rename="camel"):
    task_record_id: str


class RecordParam(Struct, frozen=True, kw_only=True, rename="camel"):
    task_record_id: str | None = None
    out_order_no: str | None = None
    task_label: str | None = None
    status: str | int | None = None


class RecordQuery(Struct, frozen=True, kw_only=True, rename="camel"):
    """Filters in ``queryParam`` or beside it; pages count from 1, sizes above 500 count as 500."""

    current_page: Annotated[int, Meta(ge=1, le=MAX_PAGE)] | None = None
    page_num: Annotated[int, Meta(ge=1, le=MAX_PAGE)] | None = None
    page_size: Annotated[int, Meta(ge=1, le=2**31)] = 20
    query_param: RecordParam = RecordParam()
    task_record_id: str | None = None
    out_order_no: str | None = None


class Record(Struct, frozen=True, kw_only=True):
    """A run. ``input_params`` is JSON text: a list of ``{"name", "defaultValue"}``; ``executor_time`` is in seconds."""

    id: str
    def_id: str
    def_label: str
    def_version: int
    status: int
    priority: int
    out_order_no: str | None
    input_params: str
    agv_id: str | None
    created_on: str | None
    first_executor_time: str | None
    ended_on: str | None
    executor_time: int | None
    ended_reason: str | None
    state_description: str | None


class Records(Struct, frozen=True, rename="camel"):
    page_list: list[Record]
    current_page: int
    page_size: int


class RecordId(Struct, frozen=True, kw_only=True, rename="camel"):
    task_record_id: Id


class BlockRecord(Struct, frozen=True, kw_only=True, rename="camel"):
    """A step: ``blockName`` is the kind, ``blockLabel`` its family; ``blockId``, ``name`` and ``path`` are ours."""

    block_name: str
    block_label: str
    status: int
    started_on: str | None
    ended_on: str | None
    ended_reason: str | None
    block_id: int
    name: str
    path: str


class BlockRecords(Struct, frozen=True, rename="camel"):
    block_list: list[BlockRecord]
    task_status: int


class Stopped(Struct, frozen=True, kw_only=True, rename="camel"):
    task_record_id: Id


class Chosen(Struct, frozen=True, kw_only=True, rename="camel"):
    """The runs to act upon: one, several, or as ``stopTaskList`` of ``{taskRecordId}``."""

    task_record_id: Id | None = None
    task_record_ids: Annotated[list[Id], Meta(max_length=MAX_ITEMS)] = []
    stop_task_list: Annotated[list[Stopped], Meta(max_length=MAX_ITEMS)] = []

    def ids(self) -> list[str]:
        named = [self.task_record_id] if self.task_record_id else []
        return [*named, *self.task_record_ids, *(item.task_record_id for item in self.stop_task_list)]


class Refused(Struct, frozen=True, rename="camel"):
    task_record_id: str
    msg: str


class Done(Struct, frozen=True):
    """What was done, and what could not be."""

    done: list[str]
    refused: list[Refused]
