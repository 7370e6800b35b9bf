// AWS's SDK for JavaScript against the appliance: a whole session, and what comes out of it.
//   node session.mjs URL
import assert from 'node:assert/strict';
import {
  CreateActivityCommand, CreateStateMachineAliasCommand, CreateStateMachineCommand, DeleteStateMachineCommand,
  DescribeExecutionCommand, GetActivityTaskCommand, paginateGetExecutionHistory, paginateListExecutions,
  RedriveExecutionCommand, SendTaskFailureCommand, SendTaskHeartbeatCommand, SendTaskSuccessCommand, SFNClient,
  StartExecutionCommand, StartSyncExecutionCommand, UpdateStateMachineCommand,
} from '@aws-sdk/client-sfn';

const sfn = new SFNClient({
  endpoint: process.argv[2],
  region: 'us-east-1',
  credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
  maxAttempts: 1,
  disableHostPrefix: true,
});
const roleArn = 'arn:aws:iam::000000000000:role/any';
const machine = (state) => JSON.stringify({ StartAt: 'Work', States: { Work: { ...state, End: true } } });

async function ended(executionArn) {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    const found = await sfn.send(new DescribeExecutionCommand({ executionArn }));
    if (found.status !== 'RUNNING') return found;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`${executionArn} does not end`);
}

async function eventsOf(executionArn) {
  const events = [];
  const pages = paginateGetExecutionHistory({ client: sfn, pageSize: 2 }, { executionArn });
  for await (const page of pages) events.push(...page.events);
  return events;
}

// Created with a version, led to by an alias.
const { activityArn } = await sfn.send(new CreateActivityCommand({ name: 'judge' }));
const definition = machine({ Type: 'Task', Resource: activityArn, HeartbeatSeconds: 60 });
const made = await sfn.send(new CreateStateMachineCommand({ name: 'line', definition, roleArn, publish: true }));
const { stateMachineAliasArn } = await sfn.send(
  new CreateStateMachineAliasCommand({
    name: 'live',
    routingConfiguration: [{ stateMachineVersionArn: made.stateMachineVersionArn, weight: 100 }],
  }),
);
assert(made.creationDate instanceof Date && stateMachineAliasArn === `${made.stateMachineArn}:live`);

// A worker fails the first attempt; the execution is redriven, and the worker does it.
const input = JSON.stringify({ clip: 'a "quoted" name.mp4' });
const start = { stateMachineArn: stateMachineAliasArn, name: 'one', input };
const { executionArn } = await sfn.send(new StartExecutionCommand(start));
const work = async () => sfn.send(new GetActivityTaskCommand({ activityArn, workerName: 'node' }));
const first = await work();
assert.deepEqual(JSON.parse(first.input), JSON.parse(input));
await sfn.send(new SendTaskFailureCommand({ taskToken: first.taskToken, error: 'Judge.Tired', cause: 'late' }));
const failed = await ended(executionArn);
assert.deepEqual([failed.status, failed.error, failed.cause], ['FAILED', 'Judge.Tired', 'late']);
assert.equal(failed.redriveStatus, 'REDRIVABLE');
await sfn.send(new RedriveExecutionCommand({ executionArn }));
const second = await work();
await sfn.send(new SendTaskHeartbeatCommand({ taskToken: second.taskToken }));
await sfn.send(new SendTaskSuccessCommand({ taskToken: second.taskToken, output: '{"good":true}' }));
const done = await ended(executionArn);
assert.deepEqual([done.status, done.output, done.redriveCount], ['SUCCEEDED', '{"good":true}', 1]);
assert.equal(done.stateMachineVersionArn, made.stateMachineVersionArn);
const tried = ['TaskStateEntered', 'ActivityScheduled', 'ActivityStarted'];
assert.deepEqual(
  (await eventsOf(executionArn)).map((event) => event.type),
  ['ExecutionStarted', ...tried, 'ActivityFailed', 'ExecutionFailed', 'ExecutionRedriven',
    ...tried, 'ActivitySucceeded', 'TaskStateExited', 'ExecutionSucceeded'],
);

// The SDK knows the errors by their classes.
const refusal = async (command) => sfn.send(command).then(() => assert.fail('it was taken'), (error) => error.name);
assert.equal(await refusal(new StartExecutionCommand({ ...start, input: '{}' })), 'ExecutionAlreadyExists');
assert.equal(await refusal(new SendTaskSuccessCommand({ taskToken: 'x', output: '1' })), 'InvalidToken');
const faulty = { stateMachineArn: made.stateMachineArn, definition: '{"StartAt": "Nowhere", "States": {}}' };
assert.equal(await refusal(new UpdateStateMachineCommand(faulty)), 'InvalidDefinition');

// Express, and lists in pages.
const pass = machine({ Type: 'Pass' });
const express = await sfn.send(new CreateStateMachineCommand({ name: 'fast', type: 'EXPRESS', definition: pass, roleArn }));
const fast = await sfn.send(new StartSyncExecutionCommand({ stateMachineArn: express.stateMachineArn, input: '[1]' }));
assert.deepEqual([fast.status, fast.output], ['SUCCEEDED', '[1]']);
const many = await sfn.send(new CreateStateMachineCommand({ name: 'many', definition: pass, roleArn }));
const names = ['a', 'b', 'c', 'd', 'e'];
for (const name of names) await sfn.send(new StartExecutionCommand({ stateMachineArn: many.stateMachineArn, name }));
const listed = [];
const pages = paginateListExecutions({ client: sfn, pageSize: 2 }, { stateMachineArn: many.stateMachineArn });
for await (const page of pages) listed.push(...page.executions.map((execution) => execution.name));
assert.deepEqual(listed.sort(), names);
await sfn.send(new DeleteStateMachineCommand({ stateMachineArn: many.stateMachineArn }));
