"""One example of each block type, for the reference. A text that begins with ``=`` is an expression."""

from __future__ import annotations

from typing import Any, Final

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    # flow
    "RootBp": {},
    "SerialFlowBp": {},
    "ParallelFlowBp": {},
    "ParallelRepeatNBp": {"num": 3},
    "IfBp": {"condition": "=taskInputs.amount > 0"},
    "IfElseBp": {"conditionIf": "=task.variables.site != null"},
    "IfElseIfBp": {"conditionIf": "=taskInputs.kind == 'A'", "conditionElseIf": "=taskInputs.kind == 'B'"},
    "WhileBp": {"loopCondition": "=task.variables.done != true", "retryPeriod": 1000},
    "RepeatNumBp": {"num": "=taskInputs.amount"},
    "IterateListBp": {"list": "=taskInputs.orders"},
    "TryCatchBp": {"swallowError": True},
    "BreakBp": {},
    "ReturnBp": {},
    "ThrowExceptionBp": {"message": "='nothing left for ' + taskInputs.kind"},
    "StopOtherBranch": {},
    "DelayBp": {"timeMillis": 5000},
    "SubTask": {"amount": "=taskInputs.amount", "ifAsync": False},
    # site
    "GetIdleSiteBp": {"groupName": "BUF", "filled": False, "lock": True, "timeoutMs": 600_000},
    "GetIdleCrowdedSiteBp": {"groupName": "LANE1,LANE2", "filled": False, "lock": True},
    "QueryIdleSiteBp": {"groupName": "BUF", "filled": True, "content": "=taskInputs.kind"},
    "SetSiteFilledBp": {"siteId": "=task.variables.site"},
    "SetSiteEmptyBp": {"siteId": "=task.variables.site"},
    "SetSiteLockedBp": {"siteId": "A-1", "lockedId": "inspection"},
    "SetSiteUnlockedBp": {"siteId": "A-1", "unLockedId": "inspection"},
    "SetSiteContentBp": {"siteId": "=task.variables.site", "content": "=taskInputs.kind"},
    "SetSiteTagsBp": {"siteId": "A-1", "tags": "cold,high"},
    "SetSiteAttrBp": {"siteId": "A-1", "attrName": "weight", "attrValue": "=12.5"},
    "GetSiteAttrBp": {"siteId": "A-1", "attrName": "weight"},
    "BatchSettingSiteBp": {"groupNames": "IN,OUT", "filled": False},
    "GetLockedSitesByTaskRecordIdBp": {"taskRecordId": "=task.id"},
    # robot
    "CSelectAgvBp": {"group": "forklifts", "keyRoute": "=task.variables.site"},
    "CAgvOperationBp": {"targetSiteLabel": "=task.variables.site", "scriptName": "ForkLoad"},
    "VehicleStationBp": {},
    "GetBatteryLevelBp": {},
    # task
    "TaskStateBp": {"stateMsg": "='bringing ' + taskInputs.kind"},
    "SetTaskVariableBp": {"varName": "count", "varValue": "=task.variables.count + 1"},
    "SetTaskVariablesBp": {"variables": {"count": 0, "done": False}},
    "SetOutOrderNoBp": {"orderNo": "=taskInputs.orderNo"},
    "SetResponseBp": {"body": "={'site': task.variables.site}", "code": 200},
    "GetTaskRecordBp": {"taskRecordId": "=taskInputs.orderNo"},
    "StartTaskBp": {"taskRecordId": "=taskInputs.orderNo"},
    "SuspendTaskBp": {"taskRecordId": "=taskInputs.orderNo"},
    "StopTaskBp": {"taskRecordId": "=taskInputs.orderNo"},
    "TriggerTaskEventBp": {"eventName": "pallet-ready", "eventData": "={'site': task.variables.site}"},
    "WaitEventBp": {"eventName": "pallet-ready", "timeoutMs": 60_000},
    # data
    "CurrentTimeStampBp": {},
    "TimestampBp": {},
    "CreateUuidBp": {},
    "StringToJsonObjectBp": {"convertString": "=taskInputs.text"},
    "StringToJsonArrayBp": {"convertString": "[1, 2, 3]"},
    "CacheDataBp": {"key": "last-site", "value": "=task.variables.site"},
    "GetCacheDataBp": {"key": "last-site"},
    "ClearCacheDataBp": {"key": "last-site"},
    "PrintBp": {"message": "='at ' + task.variables.site"},
    "ScriptBp": {"functionName": "choose_site", "functionArgs": {"groups": ["BUF"], "order": "asc"}},
    # http
    "GetBp": {"url": "http://wms.local/stock", "param": {"sku": "A-17"}, "retry": True},
    "PostBp": {"url": "http://wms.local/moves", "param": "={'site': task.variables.site}", "timeout": 5000},
    # sql
    "JdbcQueryBp": {"sql": "SELECT sku FROM stock WHERE amount > :least", "params": {"least": 0}, "database": "wms"},
    "JdbcExecuteBp": {"sql": "UPDATE stock SET amount = :n WHERE sku = :sku", "params": "={'n': 0, 'sku': 'A-17'}"},
    # modbus
    "ModbusReadBp": {"device": "conveyor", "table": "input", "address": 4, "dataType": "float32"},
    "ModbusWriteBp": {"device": "conveyor", "address": 10, "value": "=taskInputs.amount"},
    "ModbusWaitBp": {"device": "conveyor", "table": "discrete", "address": 0, "value": True, "timeoutMs": 60_000},
}
INPUTS: Final = ("amount", "kind", "orders", "orderNo", "text")
"""What the examples' expressions read of ``taskInputs``."""
SUB_TASK_ID: Final = "replenish"
