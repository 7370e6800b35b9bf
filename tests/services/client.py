"""boto3 against the appliance at the first address, whose rules and connections lead to the receiver at the second."""
import json
import sys
import time

import boto3
from botocore.config import Config

URL, RECEIVER = sys.argv[1:3]
settings = dict(endpoint_url=URL, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any",
                config=Config(retries={"max_attempts": 0}, inject_host_prefix=False))
sfn, sqs, events = (boto3.client(name, **settings) for name in ("stepfunctions", "sqs", "events"))
ROLE = "arn:aws:iam::000000000000:role/any"


def create(name, definition):
    return sfn.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)["stateMachineArn"]


def ended(arn):
    for _ in range(400):
        found = sfn.describe_execution(executionArn=arn)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.05)
    raise AssertionError(f"{arn} does not end")


def run(resource, parameters, name=[0]):
    """The end of a Task."""
    name[0] += 1
    state = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True}
    machine = create(f"task-{name[0]}", {"StartAt": "T", "States": {"T": state}})
    return ended(sfn.start_execution(stateMachineArn=machine)["executionArn"])


def output(resource, parameters):
    found = run(resource, parameters)
    assert found["status"] == "SUCCEEDED", found
    return json.loads(found["output"])


after = create("after", {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}})

# Messages: attributes, visibility, dead letters. boto3 checks the digests itself.
work, dead, seen, orders = (sqs.get_queue_url(QueueName=n)["QueueUrl"] for n in ("work", "dead", "seen", "orders.fifo"))
assert work == f"{URL}/000000000000/work" and work in sqs.list_queues()["QueueUrls"]
try:
    sqs.get_queue_url(QueueName="none")
    raise AssertionError("there is no such queue")
except sqs.exceptions.QueueDoesNotExist:
    pass
attributes = {"a": {"DataType": "String", "StringValue": "x"}, "b": {"DataType": "Binary", "BinaryValue": b"\x01\x02"}}
sent = sqs.send_message(QueueUrl=work, MessageBody="hello", MessageAttributes=attributes)
got = sqs.receive_message(QueueUrl=work, MessageAttributeNames=["All"], AttributeNames=["All"])["Messages"][0]
assert got["MessageId"] == sent["MessageId"] and got["MessageAttributes"] == attributes, got
assert got["Attributes"]["ApproximateReceiveCount"] == "1"
assert "Messages" not in sqs.receive_message(QueueUrl=work), "it is in our hands"
again = sqs.receive_message(QueueUrl=work, WaitTimeSeconds=10, AttributeNames=["All"])["Messages"][0]
assert again["Attributes"]["ApproximateReceiveCount"] == "2" and again["ReceiptHandle"] != got["ReceiptHandle"]
while "Messages" not in (buried := sqs.receive_message(QueueUrl=dead)):
    sqs.receive_message(QueueUrl=work, WaitTimeSeconds=1)
assert buried["Messages"][0]["Body"] == "hello", "twice received and not deleted"
sqs.delete_message(QueueUrl=dead, ReceiptHandle=buried["Messages"][0]["ReceiptHandle"])
batch = sqs.send_message_batch(QueueUrl=work, Entries=[{"Id": str(n), "MessageBody": f"m{n}"} for n in range(3)])
assert len(batch["Successful"]) == 3
three = sqs.receive_message(QueueUrl=work, MaxNumberOfMessages=10, VisibilityTimeout=60)["Messages"]
assert [m["Body"] for m in three] == ["m0", "m1", "m2"]
sqs.change_message_visibility(QueueUrl=work, ReceiptHandle=three[0]["ReceiptHandle"], VisibilityTimeout=0)
assert sqs.receive_message(QueueUrl=work, VisibilityTimeout=60)["Messages"][0]["Body"] == "m0"
sqs.delete_message_batch(QueueUrl=work, Entries=[{"Id": "1", "ReceiptHandle": three[1]["ReceiptHandle"]}])
counts = sqs.get_queue_attributes(QueueUrl=work, AttributeNames=["All"])["Attributes"]
assert counts["ApproximateNumberOfMessagesNotVisible"] == "2" and counts["VisibilityTimeout"] == "1", counts
assert json.loads(counts["RedrivePolicy"])["maxReceiveCount"] == 2
sqs.purge_queue(QueueUrl=work)

# FIFO: copies are taken once, a group goes in order.
first = sqs.send_message(QueueUrl=orders, MessageBody="1", MessageGroupId="g")
assert sqs.send_message(QueueUrl=orders, MessageBody="1", MessageGroupId="g")["MessageId"] == first["MessageId"]
sqs.send_message(QueueUrl=orders, MessageBody="2", MessageGroupId="g")
sqs.send_message(QueueUrl=orders, MessageBody="3", MessageGroupId="h")
one = sqs.receive_message(QueueUrl=orders)["Messages"][0]
others = sqs.receive_message(QueueUrl=orders, MaxNumberOfMessages=10)["Messages"]
assert (one["Body"], [m["Body"] for m in others]) == ("1", ["3"]), "the group is busy"
sqs.delete_message(QueueUrl=orders, ReceiptHandle=one["ReceiptHandle"])
assert sqs.receive_message(QueueUrl=orders)["Messages"][0]["Body"] == "2"

# A worker outside, of a queue that the definition names with another region and account.
state = {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True,
         "Parameters": {"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/work",
                        "MessageBody": {"token.$": "$$.Task.Token", "clip.$": "$.clip"}}}
machine = create("callback", {"StartAt": "T", "States": {"T": state}})
waiting = sfn.start_execution(stateMachineArn=machine, input='{"clip": "a.mp4"}')["executionArn"]
job = sqs.receive_message(QueueUrl=work, WaitTimeSeconds=20)["Messages"][0]
body = json.loads(job["Body"])
sfn.send_task_success(taskToken=body["token"], output=json.dumps({"done": body["clip"]}))
sqs.delete_message(QueueUrl=work, ReceiptHandle=job["ReceiptHandle"])
assert json.loads(ended(waiting)["output"]) == {"done": "a.mp4"}
answer = output("sqs:sendMessage", {"QueueUrl": work, "MessageBody": "x"})
assert answer["MD5OfMessageBody"] == "9dd4e461268c8034f5c8564e155c67a6" and answer["SdkHttpMetadata"]["HttpStatusCode"] == 200
assert output("aws-sdk:sqs:receiveMessage", {"QueueUrl": work})["Messages"][0]["Body"] == "x"
missing = run("sqs:sendMessage", {"QueueUrl": f"{URL}/000000000000/none", "MessageBody": "x"})
assert missing["error"].startswith("SQS.") and "The specified queue does not exist" in missing["cause"], missing

# Events.
entry = lambda **fields: {"Source": "studio", "DetailType": "t", "Detail": "{}", **fields}
put = events.put_events(Entries=[entry(Detail='{"n": 2}'), entry(Detail="nonsense"), entry(Source="aws.x")])
assert put["FailedEntryCount"] == 2 and [e.get("ErrorCode") for e in put["Entries"]] == [
    None, "MalformedDetail", "NotAuthorizedForSourceException"], put
assert output("events:putEvents", {"Entries": [entry(Detail={"n": 7})]})["FailedEntryCount"] == 0
failed = run("events:putEvents", {"Entries": [{"DetailType": "t", "Detail": {}}]})
assert failed["error"] == "EventBridge.FailedEntry" and json.loads(failed["cause"])["FailedEntryCount"] == 1, failed

# HTTP.
def http(connection, path, **more):
    arn = f"arn:aws:events:eu-west-1:123456789012:connection/{connection}/1"
    address = path if path.startswith("http") else f"http://{RECEIVER}{path}"
    return run("http:invoke", {"ApiEndpoint": address, "Method": "POST", "Authentication": {"ConnectionArn": arn}, **more})


said = json.loads(http("receiver", "/x", RequestBody={"a": 1}, QueryParameters={"q": ["1", "2"]})["output"])
assert said["StatusCode"] == 200 and said["StatusText"] == "OK" and said["Headers"]["content-type"] == ["application/json"]
assert said["ResponseBody"]["query"] == "q=1&q=2" and said["ResponseBody"]["body"] == '{"a":1}', said
assert said["ResponseBody"]["has_key"] and "a secret key" not in json.dumps(said)
form = http("receiver", "/x", RequestBody={"a": [1, 2]}, Transform={"RequestBodyEncoding": "URL_ENCODED"})
assert json.loads(form["output"])["ResponseBody"]["body"] == "a[0]=1&a[1]=2", form
assert json.loads(http("token", "/x")["output"])["ResponseBody"]["bearer"] == "Bearer the token"
for found, error in [
    (http("receiver", "/missing"), "States.Http.StatusCode.404"),
    (http("receiver", "http://127.0.0.1:9/x"), "States.Http.Socket"),
    (http("anywhere", f"https://{RECEIVER}/x"), "States.Http.Socket"),
    (http("none", "/x"), "Events.ConnectionResource.NotFound"),
]:
    assert found["error"] == error, found

# What the box says of its own executions; the rule's workflow does not start itself.
statuses = {}
while batch := sqs.receive_message(QueueUrl=seen, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages"):
    for message in batch:
        detail = json.loads(message["Body"])
        statuses[detail["executionArn"]] = detail
detail = statuses[waiting]
assert detail["status"] == "SUCCEEDED" and json.loads(detail["input"]) == {"clip": "a.mp4"}, detail
assert detail["stopDate"] >= detail["startDate"] and detail["outputDetails"] == {"included": True}
assert any(d["status"] == "FAILED" and d["error"] == "EventBridge.FailedEntry" for d in statuses.values())
assert not any(":after:" in arn for arn in statuses), "its own end is not told to the rule that started it"
started = sfn.list_executions(stateMachineArn=after)["executions"]
assert len(started) == len(statuses), (len(started), len(statuses))
