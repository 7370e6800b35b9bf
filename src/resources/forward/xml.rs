//! XML of AWS's protocols: bodies written by a shape, answers read by one.

use conveyor_aws::{Service, pascal};
use conveyor_base::escape;
use roxmltree::Node;
use serde_json::{Map, Value, json};

use super::times::{self, Form};
use super::write::scalar;
use super::{field, text_of};

/// A body around one value.
pub fn document(
    service: Service,
    shape: &str,
    value: &Value,
    element: &str,
    namespace: Option<&str>,
) -> Result<String, String> {
    let mut out = String::new();
    let attribute = namespace.map(|uri| format!(" xmlns=\"{}\"", escape::xml(uri))).unwrap_or_default();
    write(service, shape, value, element, &attribute, None, &mut out)?;
    Ok(out)
}

fn write(
    service: Service,
    shape: &str,
    value: &Value,
    element: &str,
    attributes: &str,
    form: Option<&str>,
    out: &mut String,
) -> Result<(), String> {
    let model = service.shape(shape);
    if let (Some(member), true, Value::Array(items)) = (model["l"].as_str(), model["f"] == true, value) {
        let name = model["n"].as_str().unwrap_or(element);
        return items.iter().try_for_each(|item| write(service, member, item, name, "", None, out));
    }
    let mut attributes = attributes.to_owned();
    let mut inner = String::new();
    if let Some(fields) = model["m"].as_object() {
        for (name, member) in fields {
            let Some(given) = field(value, name) else { continue };
            let traits = &model["f"][name];
            let on_wire = traits["n"].as_str().unwrap_or(name);
            if traits["a"] == true {
                attributes.push_str(&format!(" {on_wire}=\"{}\"", escape::xml(&text_of(given))));
            } else if traits["l"].is_null() {
                write(
                    service,
                    member.as_str().unwrap_or_default(),
                    given,
                    on_wire,
                    "",
                    traits["t"].as_str(),
                    &mut inner,
                )?;
            }
        }
    } else if let (Some(member), Value::Array(items)) = (model["l"].as_str(), value) {
        let name = model["n"].as_str().unwrap_or("member");
        items.iter().try_for_each(|item| write(service, member, item, name, "", None, &mut inner))?;
    } else {
        inner = escape::xml(&scalar(model, value, Form::named(form, Form::Iso))?);
    }
    out.push_str(&format!("<{element}{attributes}>{inner}</{element}>"));
    Ok(())
}

/// What an element holds, by its shape.
pub fn value_of(service: Service, shape: &str, node: Node<'_, '_>) -> Value {
    let model = service.shape(shape);
    if let Some(fields) = model["m"].as_object() {
        let mut read = Map::new();
        for (name, member) in fields.iter().filter(|(name, _)| model["f"][name.as_str()]["l"].is_null()) {
            let member = member.as_str().unwrap_or_default();
            let on_wire = model["f"][name]["n"].as_str().unwrap_or(name);
            let of = service.shape(member);
            let is_flat = of["f"] == true;
            // The members of a flattened list stand where the list would.
            let tag = if is_flat { of["n"].as_str().unwrap_or(on_wire) } else { on_wire };
            let mut found = node.children().filter(|child| child.has_tag_name_local(tag)).peekable();
            if found.peek().is_none() {
                continue;
            }
            let value = match (of["l"].as_str(), of["v"].as_str()) {
                (Some(item), _) if is_flat => found.map(|child| value_of(service, item, child)).collect(),
                (_, Some(item)) if is_flat => entries(service, of, item, found),
                _ => found.next().map(|child| value_of(service, member, child)).unwrap_or_default(),
            };
            read.insert(pascal(name), value);
        }
        return Value::Object(read);
    }
    let children = || node.children().filter(Node::is_element);
    if let Some(item) = model["l"].as_str() {
        return children().map(|child| value_of(service, item, child)).collect();
    }
    if let Some(item) = model["v"].as_str() {
        return entries(service, model, item, children());
    }
    let text = node.text().unwrap_or_default();
    typed(model, text)
}

fn entries<'a>(service: Service, model: &Value, item: &str, nodes: impl Iterator<Item = Node<'a, 'a>>) -> Value {
    let [key, value] = [(0, "key"), (1, "value")].map(|(at, usual)| model["n"][at].as_str().unwrap_or(usual));
    let of = |node: Node<'a, 'a>, name: &str| node.children().find(|child| child.has_tag_name_local(name));
    let entries = nodes.filter_map(|node| {
        let key = of(node, key)?.text().unwrap_or_default().to_owned();
        Some((key, value_of(service, item, of(node, value)?)))
    });
    Value::Object(entries.collect())
}

/// A text as the JSON value that the model says.
pub fn typed(model: &Value, text: &str) -> Value {
    match model.as_str() {
        Some("integer" | "long") => text.trim().parse::<i64>().map_or_else(|_| json!(text), |n| json!(n)),
        Some("float" | "double") => text.trim().parse::<f64>().map_or_else(|_| json!(text), |n| json!(n)),
        Some("boolean") => json!(text.trim() == "true"),
        Some("timestamp") => times::read(&json!(text)),
        _ => json!(text),
    }
}

/// Comparing names without their namespace.
pub trait LocalName {
    fn has_tag_name_local(&self, name: &str) -> bool;
}

impl LocalName for Node<'_, '_> {
    fn has_tag_name_local(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}
