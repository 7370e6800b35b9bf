"""boto3 against the appliance at the address given: whatever is not as AWS has it ends this with an assertion."""
import json
import sys
import threading
import time

import boto3
from botocore.config import Config

# A name such as sync-localhost need not resolve: the prefix is left out, and asked for where it is tried.
config = Config(retries={"max_attempts": 0}, inject_host_prefix=False)
sfn = boto3.client("stepfunctions", endpoint_url=sys.argv[1], config=config)
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

# Versions pin what they were published from; an alias leads to two of them.
def result_of(arn):
    return json.loads(ended(sfn.start_execution(stateMachineArn=arn)["executionArn"])["output"])


def passing(result):
    return json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": result, "End": True}}})


made = sfn.create_state_machine(name="versioned", definition=passing(1), roleArn=ROLE, publish=True,
                                versionDescription="the first", tags=[{"key": "team", "value": "media"}])
machine, v1 = made["stateMachineArn"], made["stateMachineVersionArn"]
assert v1 == machine + ":1"
changed = sfn.update_state_machine(stateMachineArn=machine, definition=passing(2))
assert "stateMachineVersionArn" not in changed
expect_conflict = dict(stateMachineArn=machine, revisionId="another")
try:
    sfn.publish_state_machine_version(**expect_conflict)
except sfn.exceptions.ConflictException:
    pass
else:
    raise AssertionError("another revision was published")
v2 = sfn.publish_state_machine_version(stateMachineArn=machine, revisionId=changed["revisionId"])["stateMachineVersionArn"]
assert v2 == sfn.publish_state_machine_version(stateMachineArn=machine)["stateMachineVersionArn"] == machine + ":2"
assert [v["stateMachineVersionArn"] for v in sfn.list_state_machine_versions(stateMachineArn=machine)["stateMachineVersions"]] == [v2, v1]
assert (result_of(machine), result_of(v1), result_of(v2)) == (2, 1, 2)
assert sfn.describe_state_machine(stateMachineArn=v1)["description"] == "the first"
alias = sfn.create_state_machine_alias(name="live", routingConfiguration=[
    {"stateMachineVersionArn": v1, "weight": 50}, {"stateMachineVersionArn": v2, "weight": 50}])["stateMachineAliasArn"]
led = [ended(sfn.start_execution(stateMachineArn=alias)["executionArn"]) for _ in range(40)]
assert {e["stateMachineVersionArn"] for e in led} == {v1, v2}, "forty executions, and all went the same way"
assert all(e["stateMachineAliasArn"] == alias and e["output"] == e["stateMachineVersionArn"][-1] for e in led)
assert len(sfn.list_executions(stateMachineArn=alias)["executions"]) == 40
tokens = sfn.get_paginator("list_executions").paginate(stateMachineArn=alias, PaginationConfig={"PageSize": 15})
assert [len(page["executions"]) for page in tokens] == [15, 15, 10]
try:
    sfn.delete_state_machine_version(stateMachineVersionArn=v1)
except sfn.exceptions.ConflictException as e:
    assert "[live]" in e.response["Error"]["Message"], e.response
else:
    raise AssertionError("a version that an alias leads to was deleted")
sfn.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=[{"stateMachineVersionArn": v2, "weight": 100}])
sfn.delete_state_machine_version(stateMachineVersionArn=v1)
assert result_of(alias) == 2
assert [a["stateMachineAliasArn"] for a in sfn.list_state_machine_aliases(stateMachineArn=machine)["stateMachineAliases"]] == [alias]

# Tags.
sfn.tag_resource(resourceArn=machine, tags=[{"key": "team", "value": "post"}, {"key": "box", "value": "7"}])
assert sfn.list_tags_for_resource(resourceArn=machine)["tags"] == [
    {"key": "team", "value": "post"}, {"key": "box", "value": "7"}]
sfn.untag_resource(resourceArn=machine, tagKeys=["team"])
sfn.tag_resource(resourceArn=activity, tags=[{"key": "box", "value": "7"}])
assert sfn.list_tags_for_resource(resourceArn=machine)["tags"] == sfn.list_tags_for_resource(resourceArn=activity)["tags"]

# A failed execution goes on from where it failed.
failing = json.dumps({"StartAt": "Ask", "States": {"Ask": {"Type": "Task", "Resource": activity, "End": True}}})
redriven_arn = sfn.create_state_machine(name="redriven", definition=failing, roleArn=ROLE)["stateMachineArn"]
started = sfn.start_execution(stateMachineArn=redriven_arn, input="{}")["executionArn"]
task = sfn.get_activity_task(activityArn=activity)
sfn.send_task_failure(taskToken=task["taskToken"], error="Not.Yet")
assert ended(started)["redriveStatus"] == "REDRIVABLE"
again = [sfn.redrive_execution(executionArn=started, clientToken="once")["redriveDate"] for _ in range(2)]
assert again[0] == again[1] == sfn.describe_execution(executionArn=started)["redriveDate"]
task = sfn.get_activity_task(activityArn=activity)
sfn.send_task_success(taskToken=task["taskToken"], output="[]")
found = ended(started)
assert (found["status"], found["redriveCount"]) == ("SUCCEEDED", 1), found
for redriven, names in [("REDRIVEN", [found["name"]]), ("NOT_REDRIVEN", [])]:
    listed = sfn.list_executions(stateMachineArn=redriven_arn, redriveFilter=redriven)["executions"]
    assert [e["name"] for e in listed] == names, listed

# A machine whose execution still runs goes when that has ended.
sfn.start_execution(stateMachineArn=redriven_arn, name="last")
sfn.delete_state_machine(stateMachineArn=redriven_arn)
assert sfn.describe_state_machine(stateMachineArn=redriven_arn)["status"] == "DELETING"
try:
    sfn.start_execution(stateMachineArn=redriven_arn)
except sfn.exceptions.StateMachineDeleting:
    pass
else:
    raise AssertionError("a machine that is being deleted was started")
last = redriven_arn.replace(":stateMachine:", ":execution:") + ":last"
sfn.stop_execution(executionArn=last)
for _ in range(100):
    try:
        sfn.describe_state_machine(stateMachineArn=redriven_arn)
    except sfn.exceptions.StateMachineDoesNotExist:
        break
    time.sleep(0.05)
else:
    raise AssertionError("the machine stays")
assert sfn.describe_state_machine_for_execution(executionArn=last)["name"] == "redriven"

# Express: the answer comes with the call, under a name that need not be new.
express = sfn.create_state_machine(name="express", definition=passing({"x": 1}), roleArn=ROLE, type="EXPRESS",
                                   loggingConfiguration={"level": "OFF"})["stateMachineArn"]
for _ in range(2):
    found = sfn.start_sync_execution(stateMachineArn=express, name="again", input="{}")
    assert (found["status"], json.loads(found["output"])) == ("SUCCEEDED", {"x": 1}), found
    assert found["billingDetails"]["billedDurationInMilliseconds"] % 100 == 0 and ":express:express:again:" in found["executionArn"]
for call in [lambda: sfn.start_sync_execution(stateMachineArn=machine), lambda: sfn.list_executions(stateMachineArn=express)]:
    try:
        call()
    except sfn.exceptions.StateMachineTypeNotSupported:
        pass
    else:
        raise AssertionError("the type of the machine does not matter")

# One state tried out.
tried = sfn.test_state(definition='{"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Next": "B", '
                       '"Parameters": {"MessageBody.$": "$.m"}, "ResultPath": "$.sent"}', input='{"m": "hello"}',
                       mock={"result": '{"MessageId": "1"}'}, inspectionLevel="DEBUG")
assert (tried["status"], tried["nextState"], json.loads(tried["output"])) == (
    "SUCCEEDED", "B", {"m": "hello", "sent": {"MessageId": "1"}}), tried
assert json.loads(tried["inspectionData"]["afterParameters"]) == {"MessageBody": "hello"}

# Update, validate, delete.
sfn.update_state_machine(stateMachineArn=pass_arn, definition='{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}')
assert '"B"' in sfn.describe_state_machine(stateMachineArn=pass_arn)["definition"]
checked = sfn.validate_state_machine_definition(definition='{"States": {}}')
assert checked["result"] == "FAIL" and checked["diagnostics"], checked
sfn.delete_state_machine(stateMachineArn=pass_arn)
print("all as AWS has it")
