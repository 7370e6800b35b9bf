#!/bin/bash
# The AWS command line against the appliance at $1: a whole session, and what comes out of it.
#   session.sh AWS URL
set -euo pipefail
aws=("$1" --endpoint-url "$2" --output text stepfunctions)
# A name such as sync-localhost need not resolve.
export AWS_PAGER= AWS_DISABLE_HOST_PREFIX_INJECTION=true
role=arn:aws:iam::000000000000:role/any
pass='{"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": 7, "End": true}}}'

is() { # what, expected, got
    [ "$2" = "$3" ] || { echo "$1: expected '$2', got '$3'"; exit 1; }
}

version=$("${aws[@]}" create-state-machine --name line --definition "$pass" --role-arn $role --publish \
    --query stateMachineVersionArn)
machine=${version%:1}
alias=$("${aws[@]}" create-state-machine-alias --name live \
    --routing-configuration "stateMachineVersionArn=$version,weight=100" --query stateMachineAliasArn)
is "the alias" "$machine:live" "$alias"
execution=$("${aws[@]}" start-execution --state-machine-arn "$alias" --name one --query executionArn)
for _ in $(seq 50); do
    status=$("${aws[@]}" describe-execution --execution-arn "$execution" --query '[status,output,stateMachineVersionArn]')
    [[ $status == RUNNING* ]] || break
done
is "the execution" "SUCCEEDED	7	$version" "$status"
is "its history" "ExecutionStarted	PassStateEntered	PassStateExited	ExecutionSucceeded" \
    "$("${aws[@]}" get-execution-history --execution-arn "$execution" --query 'events[].type')"
"${aws[@]}" tag-resource --resource-arn "$machine" --tags key=team,value=media
is "the tags" "team	media" "$("${aws[@]}" list-tags-for-resource --resource-arn "$machine" --query 'tags[].[key,value]')"
express=$("${aws[@]}" create-state-machine --name fast --type EXPRESS --definition "$pass" --role-arn $role \
    --query stateMachineArn)
is "the express execution" "SUCCEEDED	7" \
    "$("${aws[@]}" start-sync-execution --state-machine-arn "$express" --query '[status,output]')"
is "the state tried out" "SUCCEEDED	{\"a\":1}" \
    "$("${aws[@]}" test-state --definition '{"Type": "Pass", "End": true}' --input '{"a":1}' --query '[status,output]')"
refusal=$("${aws[@]}" start-execution --state-machine-arn "$alias" --name one 2>&1) && exit 1
[[ $refusal == *"(ExecutionAlreadyExists)"* ]] || { echo "a name was given twice: $refusal"; exit 1; }
"${aws[@]}" delete-state-machine --state-machine-arn "$machine"
is "what is left" "fast" "$("${aws[@]}" list-state-machines --query 'stateMachines[].name')"
