//! Requests and answers of the four protocols, as AWS's services write them.

use super::*;

fn operation(resource: &str) -> (Operation, Integration) {
    let (service, operation) = resource.split_once(':').unwrap();
    find(service, operation).unwrap()
}

fn written(resource: &str, parameters: Value) -> (String, String, String) {
    let request = write::request(operation(resource).0, &parameters).unwrap();
    let headers = request.headers.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>().join("; ");
    (format!("{} {}", request.method, request.path), headers, String::from_utf8(request.body).unwrap())
}

fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Response { status, headers, body: body.as_bytes().to_vec() }
}

fn result(resource: &str, headers: &[(&str, &str)], body: &str) -> Value {
    read::answer(operation(resource).0, &answered(200, headers, body)).unwrap()
}

fn error(resource: &str, status: u16, headers: &[(&str, &str)], body: &str) -> (String, String) {
    let (operation, integration) = operation(resource);
    let error = read::error(operation.service, &answered(status, headers, body));
    let error = Names::of(operation.service, integration).error(&error, status, "ID");
    (error.error, error.cause)
}

#[test]
fn json_services_get_json_with_their_own_names() {
    let (line, headers, body) = written("sqs:sendMessage", json!({"QueueUrl": "q", "MessageBody": {"a": [1]}}));
    assert_eq!((line.as_str(), body.as_str()), ("POST /", r#"{"MessageBody":"{\"a\":[1]}","QueueUrl":"q"}"#));
    assert_eq!(headers, "content-type: application/x-amz-json-1.0; x-amz-target: AmazonSQS.SendMessage");
    let (_, _, body) = written("ecs:runTask", json!({"TaskDefinition": "t", "Overrides": {"TaskRoleArn": "r"}}));
    assert_eq!(body, r#"{"overrides":{"taskRoleArn":"r"},"taskDefinition":"t"}"#);
    let at = json!({"LogGroupName": "g", "LogStreamName": "s", "LogEvents": [{"Timestamp": 5, "Message": "m"}]});
    let (_, _, body) = written("aws-sdk:cloudwatchlogs:putLogEvents", at);
    assert!(body.contains(r#"[{"message":"m","timestamp":5}]"#), "{body}");
    let (_, _, body) = written("aws-sdk:kinesis:putRecord", json!({"Data": "bytes", "PartitionKey": "k"}));
    assert!(body.contains(r#""Data":"Ynl0ZXM=""#), "{body}");
    let told = r#"{"taskArns":["a"],"unknown":1,"nextToken":null}"#;
    assert_eq!(result("aws-sdk:ecs:listTasks", &[], told), json!({"TaskArns": ["a"]}));
    let secret = r#"{"Name":"n","CreatedDate":1.5E9,"VersionIdsToStages":{"v":["AWSCURRENT"]}}"#;
    let shown =
        json!({"CreatedDate": "2017-07-14T02:40:00Z", "Name": "n", "VersionIdsToStages": {"v": ["AWSCURRENT"]}});
    assert_eq!(result("aws-sdk:secretsmanager:describeSecret", &[], secret), shown);
}

#[test]
fn query_services_get_forms_and_answer_in_xml() {
    let attributes = json!({"n": {"DataType": "String", "StringValue": "a&b"}});
    let (_, headers, body) =
        written("sns:publish.waitForTaskToken", json!({"Message": {"k": 1}, "MessageAttributes": attributes}));
    assert!(headers.contains("x-www-form-urlencoded"), "{headers}");
    let entry = "MessageAttributes.entry.1";
    for part in [
        "Action=Publish&Version=2010-03-31".to_owned(),
        "Message=%7B%22k%22%3A1%7D".to_owned(),
        format!("{entry}.Name=n&{entry}.Value.DataType=String&{entry}.Value.StringValue=a%26b"),
    ] {
        assert!(body.contains(&part), "{part} in {body}");
    }
    let told = r#"<ListTopicsResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><ListTopicsResult><Topics>
        <member><TopicArn>a</TopicArn></member><member><TopicArn>b</TopicArn></member></Topics></ListTopicsResult>
        <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ListTopicsResponse>"#;
    assert_eq!(result("aws-sdk:sns:listTopics", &[], told), json!({"Topics": [{"TopicArn": "a"}, {"TopicArn": "b"}]}));
}

#[test]
fn rest_services_get_paths_queries_headers_and_bodies() {
    let (line, headers, body) = written(
        "aws-sdk:s3:putObject",
        json!({"Bucket": "b", "Key": "a b/ü.json", "Body": {"x": 1}, "Metadata": {"by": "me"}, "ContentType": "text/x"}),
    );
    assert_eq!((line.as_str(), body.as_str()), ("PUT /b/a%20b/%C3%BC.json", r#"{"x":1}"#));
    assert!(headers.contains("x-amz-meta-by: me") && headers.contains("content-type: text/x"), "{headers}");
    let (line, _, _) = written("aws-sdk:s3:listObjectsV2", json!({"Bucket": "b", "Prefix": "p/", "MaxKeys": 3}));
    assert_eq!(line, "GET /b?list-type=2&max-keys=3&prefix=p%2F");
    let delete = json!({"Bucket": "b", "Delete": {"Objects": [{"Key": "<k>"}, {"Key": "l"}], "Quiet": true}});
    let (line, _, body) = written("aws-sdk:s3:deleteObjects", delete);
    assert_eq!(line, "POST /b?delete=");
    assert_eq!(
        body,
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>&lt;k&gt;</Key></Object>\
         <Object><Key>l</Key></Object><Quiet>true</Quiet></Delete>"
    );
    let (_, _, body) =
        written("aws-sdk:s3:deleteObjects", json!({"Bucket": "b", "Delete": {"Objects": [{"Key": "a\r\"&b"}]}}));
    let read = roxmltree::Document::parse(&body).unwrap();
    let key = read.descendants().find(|node| node.tag_name().name() == "Key").unwrap();
    assert_eq!(key.text(), Some("a\r\"&b"), "{body}");
    let (line, headers, body) =
        written("aws-sdk:batch:submitJob", json!({"JobName": "n", "JobQueue": "q", "JobDefinition": "d"}));
    assert_eq!(line, "POST /v1/submitjob");
    assert_eq!(headers, "content-type: application/json");
    assert_eq!(body, r#"{"jobDefinition":"d","jobName":"n","jobQueue":"q"}"#);
    let missing = write::request(operation("aws-sdk:s3:getObject").0, &json!({"Bucket": "b"})).err();
    assert_eq!(missing.as_deref(), Some("GetObject: the parameter Key is missing"));
    let head = [("content-length", "4"), ("last-modified", "Fri, 14 Jul 2017 02:40:00 GMT"), ("x-amz-meta-by", "me")];
    assert_eq!(
        result("aws-sdk:s3:getObject", &head, "text"),
        json!({"Body": "text", "ContentLength": 4, "LastModified": "2017-07-14T02:40:00Z", "Metadata": {"by": "me"}})
    );
    let list = "<ListBucketResult><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>k</Key>\
                <Size>7</Size></Contents></ListBucketResult>";
    assert_eq!(
        result("aws-sdk:s3:listObjectsV2", &[], list),
        json!({"KeyCount": 1, "IsTruncated": false, "Contents": [{"Key": "k", "Size": 7}]})
    );
}

#[test]
fn errors_are_named_as_each_integration_names_them() {
    let gone = r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"Gone."}"#;
    assert_eq!(
        error("sqs:sendMessage", 400, &[], gone),
        (
            "SQS.QueueDoesNotExistException".into(),
            "Gone. (Service: AmazonSQS; Status Code: 400; Error Code: QueueDoesNotExist; Request ID: ID; Proxy: null)"
                .into()
        )
    );
    assert_eq!(
        error("aws-sdk:sqs:sendMessage", 400, &[], gone),
        ("Sqs.QueueDoesNotExistException".into(), "Gone. (Service: Sqs, Status Code: 400, Request ID: ID)".into())
    );
    let unmodelled = r#"{"__type":"SomethingElse","Message":"m"}"#;
    assert_eq!(error("aws-sdk:dynamodb:scan", 400, &[], unmodelled).0, "DynamoDb.DynamoDbException");
    assert_eq!(error("ecs:runTask", 400, &[], unmodelled).0, "ECS.AmazonECSException");
    assert_eq!(
        error("batch:submitJob", 400, &[("x-amzn-errortype", "ClientException:http://x")], "{}").0,
        "Batch.ClientException"
    );
    let xml = "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>";
    assert_eq!(error("aws-sdk:s3:getObject", 404, &[], xml).0, "S3.NoSuchKeyException");
    let topic = "<ErrorResponse><Error><Type>Sender</Type><Code>NotFound</Code><Message>no topic</Message></Error></ErrorResponse>";
    assert_eq!(error("aws-sdk:sns:publish", 404, &[], topic).0, "Sns.NotFoundException");
    assert_eq!(
        error("aws-sdk:secretsmanager:getSecretValue", 502, &[], "<html>bad gateway</html>").1,
        "<html>bad gateway</html> (Service: SecretsManager, Status Code: 502, Request ID: ID)"
    );
}
