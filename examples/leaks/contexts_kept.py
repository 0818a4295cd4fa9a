"""Contexts that outlive their tasks (task server, S1.5: the worst of its leaks).

A ``TaskContext`` gathers variables, the path that was taken and the output of each block. The scheduler keeps the
executor of every task, finished or not, and the executor keeps the context. Repaired: the executor is dropped when the
task ends.
"""

import asyncio

from stage import Stage


class TaskContext:
    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.variables: dict[str, object] = {}
        self.variable_sources: dict[str, str] = {}
        self.execution_path: list[str] = []
        self.block_outputs: dict[str, dict[str, str]] = {}

    def block_done(self, name: str, output: dict[str, str]) -> None:
        self.execution_path.append(name)
        self.block_outputs[name] = output
        self.variables[f"{name}.site"] = output["site"]
        self.variable_sources[f"{name}.site"] = name


class TaskExecutor:
    def __init__(self, task_id: str) -> None:
        self.task_context = TaskContext(task_id)
        self.is_running = False

    async def execute(self) -> None:
        self.is_running = True
        for block in range(10):
            await asyncio.sleep(0)
            self.task_context.block_done(f"block{block}", {"site": f"IN-{block}", "robot": f"R{block}"})
        self.is_running = False


class TaskScheduler:
    def __init__(self) -> None:
        self.executors: dict[str, TaskExecutor] = {}

    async def run_task(self, number: int) -> None:
        task_id = f"task-{number}"
        executor = TaskExecutor(task_id)  # allocated here
        self.executors[task_id] = executor  # inserted here
        await executor.execute()


class RepairedTaskScheduler(TaskScheduler):
    async def run_task(self, number: int) -> None:
        try:
            await super().run_task(number)
        finally:
            del self.executors[f"task-{number}"]


async def work(scheduler: TaskScheduler, stage: Stage) -> None:
    async for number in stage.aorders():
        await scheduler.run_task(number)


if __name__ == "__main__":
    stage = Stage(__doc__, rate=120)
    scheduler = RepairedTaskScheduler() if stage.repaired else TaskScheduler()
    asyncio.run(work(scheduler, stage))
