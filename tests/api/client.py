"""boto3 against the appliance at the address given: whatever is not as AWS has it ends this with an assertion."""
import json
import sys
import threading
import time

import boto3
from botocore.config import Config

sfn = boto3.client("stepfunctions", endpoint_url=sys.argv[1], config=Config(retries={"max_attempts": 0}))
ROLE = "arn:aws:iam::000000000000:role/any"


def create(name, states, first):
    definition = json.dumps({"StartAt": first, "States": states})
    return sfn.create_state_machine(name=name, definition=definition, roleArn=ROLE)["stateMachineArn"]


def ended(arn):
    for _ in range(300):
        found = sfn.describe_execution(executionArn=arn)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.05)
    raise AssertionError(f"{arn} does not end")


# Start, describe, list, history.
pass_arn = create("passes", {"A": {"Type": "Pass", "Result": {"done": True}, "End": True}}, "A")
assert pass_arn in [m["stateMachineArn"] for m in sfn.list_state_machines()["stateMachines"]]
first = sfn.start_execution(stateMachineArn=pass_arn, name="one", input='{ "a": 1 }')
found = ended(first["executionArn"])
assert found["status"] == "SUCCEEDED" and json.loads(found["output"]) == {"done": True}, found
assert found["startDate"] == first["startDate"] and found["stopDate"] >= found["startDate"]
history = sfn.get_execution_history(executionArn=first["executionArn"])["events"]
assert [e["type"] for e in history] == [
    "ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded"], history
assert history[0]["executionStartedEventDetails"]["input"] == '{ "a": 1 }'
pages = list(sfn.get_paginator("get_execution_history").paginate(
    executionArn=first["executionArn"], reverseOrder=True, PaginationConfig={"PageSize": 3}))
assert [e["id"] for page in pages for e in page["events"]] == [4, 3, 2, 1] and len(pages) == 2
assert [e["name"] for e in sfn.list_executions(stateMachineArn=pass_arn, statusFilter="SUCCEEDED")["executions"]] == ["one"]

# What the caller did wrong has AWS's names.
for exception, call in [
    (sfn.exceptions.ExecutionAlreadyExists,
     lambda: sfn.start_execution(stateMachineArn=pass_arn, name="one", input="{}")),
    (sfn.exceptions.StateMachineDoesNotExist, lambda: sfn.start_execution(stateMachineArn=pass_arn + "x")),
    (sfn.exceptions.InvalidExecutionInput, lambda: sfn.start_execution(stateMachineArn=pass_arn, input="{")),
    (sfn.exceptions.InvalidName, lambda: sfn.start_execution(stateMachineArn=pass_arn, name="a/b")),
    (sfn.exceptions.InvalidArn, lambda: sfn.describe_execution(executionArn="nonsense")),
    (sfn.exceptions.InvalidDefinition,
     lambda: sfn.create_state_machine(name="bad", definition='{"StartAt": "A"}', roleArn=ROLE)),
    (sfn.exceptions.InvalidToken, lambda: sfn.send_task_success(taskToken="nonsense", output="{}")),
    (sfn.exceptions.InvalidToken, lambda: sfn.list_state_machines(nextToken="nonsense")),
    (sfn.exceptions.ValidationException, lambda: sfn.list_executions(stateMachineArn=pass_arn, maxResults=1000, nextToken="x" * 3097)),
    (sfn.exceptions.ValidationException, lambda: sfn.validate_state_machine_definition(definition="{}", maxResults=101)),
    (sfn.exceptions.ExecutionDoesNotExist, lambda: sfn.describe_execution(executionArn=first["executionArn"] + "x")),
    (sfn.exceptions.ExecutionDoesNotExist, lambda: sfn.stop_execution(executionArn=first["executionArn"] + "x")),
    (sfn.exceptions.ExecutionNotRedrivable, lambda: sfn.redrive_execution(executionArn=first["executionArn"])),
    (sfn.exceptions.ActivityDoesNotExist,
     lambda: sfn.describe_activity(activityArn="arn:aws:states:us-east-1:000000000000:activity:none")),
    (sfn.exceptions.StateMachineAlreadyExists,
     lambda: sfn.create_state_machine(name="passes", definition='{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}', roleArn=ROLE)),
    (sfn.exceptions.MissingRequiredParameter, lambda: sfn.update_state_machine(stateMachineArn=pass_arn)),
]:
    try:
        call()
    except exception as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 400, e.response
    else:
        raise AssertionError(f"{exception} was expected")

# Idempotent by name while it runs; stop.
wait_arn = create("waits", {"W": {"Type": "Wait", "Seconds": 300, "End": True}}, "W")
a = sfn.start_execution(stateMachineArn=wait_arn, name="same", input="{}")
b = sfn.start_execution(stateMachineArn=wait_arn, name="same", input="{}")
assert a["executionArn"] == b["executionArn"] and a["startDate"] == b["startDate"]
sfn.stop_execution(executionArn=a["executionArn"], error="Operator", cause="enough")
found = ended(a["executionArn"])
assert (found["status"], found["error"], found["cause"]) == ("ABORTED", "Operator", "enough"), found

# An activity's worker fetches work, reports, and the output goes on; a failure drives the execution too.
activity = sfn.create_activity(name="look")["activityArn"]
work_arn = create("works", {"Look": {"Type": "Task", "Resource": activity, "HeartbeatSeconds": 60, "End": True}}, "Look")
for outcome in ["SUCCEEDED", "FAILED"]:
    got = {}
    worker = threading.Thread(target=lambda: got.update(sfn.get_activity_task(activityArn=activity, workerName="me")))
    worker.start()
    started = sfn.start_execution(stateMachineArn=work_arn, input='{"file": "clip.mp4"}')
    worker.join(30)
    assert json.loads(got["input"]) == {"file": "clip.mp4"}, got
    sfn.send_task_heartbeat(taskToken=got["taskToken"])
    try:
        sfn.send_task_success(taskToken=got["taskToken"], output="{")
    except sfn.exceptions.InvalidOutput:
        pass
    else:
        raise AssertionError("what is no JSON was taken for an output")
    if outcome == "SUCCEEDED":
        sfn.send_task_success(taskToken=got["taskToken"], output='{"seen": true}')
    else:
        sfn.send_task_failure(taskToken=got["taskToken"], error="Eye.Closed", cause="it slept")
    found = ended(started["executionArn"])
    assert found["status"] == outcome, found
    if outcome == "FAILED":
        assert (found["error"], found["cause"]) == ("Eye.Closed", "it slept")
    try:
        sfn.send_task_success(taskToken=got["taskToken"], output="{}")
    except (sfn.exceptions.TaskTimedOut, sfn.exceptions.TaskDoesNotExist):
        pass
    else:
        raise AssertionError("a task was reported twice")

# Update, validate, delete.
sfn.update_state_machine(stateMachineArn=pass_arn, definition='{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}')
assert '"B"' in sfn.describe_state_machine(stateMachineArn=pass_arn)["definition"]
checked = sfn.validate_state_machine_definition(definition='{"States": {}}')
assert checked["result"] == "FAIL" and checked["diagnostics"], checked
sfn.delete_state_machine(stateMachineArn=pass_arn)
print("all as AWS has it")
