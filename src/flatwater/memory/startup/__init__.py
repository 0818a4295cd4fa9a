"""The folder that ``flatwater exec`` puts in front of PYTHONPATH: its ``sitecustomize`` starts the agent."""
