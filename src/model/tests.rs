//! What the parser of parameters promises for every operation and constructor that is described.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::class::{self, Class, Kind, Method, Param};
use super::types::IceCandidatePair;
use super::value::{Args, constructor_args, operation_args, typed};
use super::{Arg, FromArg, IntoValue, RemoteError};

static OPERATIONS: LazyLock<Vec<&'static Method>> =
    LazyLock::new(|| class::CLASSES.iter().flat_map(|class| class.methods).collect());

/// Every class has an object: its id is the name of the class.
fn objects(id: &str) -> Option<&'static Class> {
    class::find(id)
}

fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1_000_000..1_000_000).prop_map(Value::from),
        "[ -~é]{0,12}".prop_map(Value::from),
        prop_oneof!["newref:[0-9]", "HubPort", "VIDEO", "kurento", "RembParams", "WindowParam"]
            .prop_map(Value::from),
    ];
    let key = prop_oneof!["[a-z]{0,6}", "__type__", "__module__", "id"];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
    .boxed()
}

/// What the descriptor asks for.
fn fitting(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Text => "[ -~é]{0,12}".prop_map(Value::from).boxed(),
        Kind::Int => any::<i32>().prop_map(Value::from).boxed(),
        Kind::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Float => any::<f32>().prop_map(|number| json!(finite(number.into()))).boxed(),
        Kind::Double => any::<f64>().prop_map(|number| json!(finite(number))).boxed(),
        Kind::Object(class) => Just(json!(class)).boxed(),
        Kind::Enum(of) => proptest::sample::select(of.values).prop_map(Value::from).boxed(),
        Kind::Register(of) => {
            let named = json!({"__module__": of.namespace, "__type__": of.name});
            let members = given(of.members, |param| fitting(param.kind));
            (members, any::<bool>())
                .prop_map(move |(mut members, with_name)| {
                    if with_name {
                        members.extend(named.as_object().expect("members").clone());
                    }
                    members.into()
                })
                .boxed()
        }
        Kind::List(item) => {
            proptest::collection::vec(fitting(*item), 0..3).prop_map(Value::from).boxed()
        }
        Kind::Map(item) => proptest::collection::btree_map("[a-z]{0,4}", fitting(*item), 0..3)
            .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into())
            .boxed(),
    }
}

/// JSON has no other numbers.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

/// Members for all that must be given and for some that need not be.
fn given(
    params: &'static [Param],
    value: impl Fn(&Param) -> BoxedStrategy<Value>,
) -> BoxedStrategy<Map<String, Value>> {
    let mut members = Just(Map::new()).boxed();
    for param in params {
        let present = if param.optional { any::<bool>().boxed() } else { Just(true).boxed() };
        members = (members, value(param), present)
            .prop_map(|(mut members, value, present)| {
                if present {
                    members.insert(param.name.to_owned(), value);
                }
                members
            })
            .boxed();
    }
    members
}

/// Near to what the descriptor asks for: each of it may be missing or be something else, and so may
/// the whole.
fn near(params: &'static [Param]) -> BoxedStrategy<Option<Value>> {
    let members =
        given(params, |param| prop_oneof![4 => fitting(param.kind), 1 => any_json()].boxed());
    let thinned = (members, any_json(), proptest::collection::vec(any::<bool>(), params.len()));
    prop_oneof![
        8 => thinned.prop_map(|(mut members, other, absent)| {
            for (param, absent) in params.iter().zip(absent) {
                if absent {
                    members.remove(param.name);
                }
            }
            members.insert("other".to_owned(), other);
            Some(members.into())
        }),
        1 => any_json().prop_map(Some),
        1 => Just(None),
    ]
    .boxed()
}

fn operation() -> impl Strategy<Value = &'static Method> {
    (0..OPERATIONS.len()).prop_map(|at| OPERATIONS[at])
}

fn creation() -> impl Strategy<Value = &'static Class> {
    let classes = class::CLASSES.iter().filter(|class| !class.is_abstract);
    proptest::sample::select(classes.copied().collect::<Vec<_>>())
}

/// Accepted arguments turn into what is taken; what is refused is refused in the words for it.
fn check(checked: Result<Args, RemoteError>, take: impl FnOnce(Args) -> bool) {
    match checked {
        Ok(args) => assert!(take(args), "the arguments are not those that are taken"),
        Err(error) => {
            let known = [40001, 40003, 40101, 40107, 40109].contains(&error.code());
            assert!(known, "{} {error}", error.code());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_parameters_of_any_operation_are_refused_or_become_its_arguments(
        (method, given) in operation().prop_flat_map(|method| (Just(method), near(method.params))),
    ) {
        let checked = operation_args(method, given.as_ref(), &objects);
        check(checked, |args| typed::operation(method, args));
    }

    #[test]
    fn any_parameters_of_any_constructor_are_refused_or_become_its_arguments(
        (class, given) in creation().prop_flat_map(|class| (Just(class), near(class.constructor))),
    ) {
        let checked = constructor_args(class, given.as_ref(), &objects);
        check(checked, |args| typed::constructor(class, args));
    }

    #[test]
    fn what_a_descriptor_asks_for_is_accepted(
        (method, members) in operation().prop_flat_map(|method| {
            (Just(method), given(method.params, |param| fitting(param.kind)))
        }),
    ) {
        let members = Value::from(members);
        let checked = operation_args(method, Some(&members), &objects);
        prop_assert!(checked.is_ok(), "{}: {members}: {checked:?}", method.name);
        check(checked, |args| typed::operation(method, args));
    }
}

fn refused(class: &str, operation: &str, given: Value) -> (i32, String) {
    let method = class::find(class).and_then(|class| class.method(operation)).expect("described");
    let error = operation_args(method, Some(&given), &objects).expect_err("refused");
    (error.code(), error.to_string())
}

fn refused_to_create(class: &str, given: Value) -> (i32, String) {
    let class = class::find(class).expect("described");
    let error = constructor_args(class, Some(&given), &objects).expect_err("refused");
    (error.code(), error.to_string())
}

#[test]
fn every_type_has_its_word_in_the_text_of_an_error() {
    for (class, operation, name, wrong, word) in [
        ("MediaObject", "setName", "name", json!({"a": 1}), "string"),
        ("MediaObject", "setSendTagsInEvents", "sendTagsInEvents", json!("true"), "boolean"),
        ("MediaElement", "setEncoderBitrate", "encoderBitrate", json!("5"), "integer"),
        ("PlayerEndpoint", "setPosition", "position", json!("5"), "int64"),
        (
            "PlateDetectorFilter",
            "setPlateWidthPercentage",
            "plateWidthPercentage",
            json!("1"),
            "double",
        ),
        ("MediaElement", "connect", "sink", json!([]), "string"),
        ("MediaElement", "isMediaFlowingIn", "mediaType", json!({}), "string"),
        ("MediaElement", "setAudioFormat", "caps", json!(5), "object"),
        ("SdpEndpoint", "generateOffer", "options", json!(5), "object"),
    ] {
        let error = refused(class, operation, json!({ name: wrong }));
        assert_eq!(error, (40001, format!("'{name}' parameter should be a {word}")), "{operation}");
    }
    let list = json!({"mediaPipeline": "MediaPipeline", "rois": "x"});
    let error = refused_to_create("CrowdDetectorFilter", list);
    assert_eq!(error, (40001, "'rois' parameter should be a list".to_owned()));
}

#[test]
fn members_of_registers_are_named_however_deep_they_are() {
    let caps = |caps: Value| refused("MediaElement", "setVideoFormat", json!({ "caps": caps }));
    for (given, text) in [
        (json!({}), "'codec' property should be a string"),
        (json!({"codec": "VP8"}), "'framerate' property should be a object"),
        (
            json!({"codec": "VP8", "framerate": {"numerator": 1}}),
            "'denominator' property should be a integer",
        ),
        (json!({"codec": "XX", "framerate": {}}), "Invalid value for 'VideoCodec'"),
    ] {
        assert_eq!(caps(given), (40001, text.to_owned()));
    }
    let rois = |rois: Value| {
        refused_to_create(
            "CrowdDetectorFilter",
            json!({"mediaPipeline": "MediaPipeline", "rois": rois}),
        )
    };
    for (given, text) in [
        (json!([{}]), "'points' property should be a list"),
        (json!([{"points": [{"x": 0}]}]), "'y' property should be a double"),
        (json!([{"points": [5]}]), "'points' property should be a list"),
        (json!([5]), "'rois' parameter should be a list"),
    ] {
        assert_eq!(rois(given), (40001, text.to_owned()));
    }
}

#[test]
fn numbers_are_no_names_of_values() {
    let error = refused("MediaElement", "isMediaFlowingIn", json!({"mediaType": 1}));
    assert_eq!(error, (40001, "Invalid value for 'MediaType'".to_owned()));
}

#[test]
fn types_of_the_same_name_in_two_modules_are_not_mixed_up() {
    let window = |module: &str| {
        json!({"mediaPipeline": "MediaPipeline", "window": {
            "__type__": "WindowParam", "__module__": module,
            "topRightCornerX": 1, "topRightCornerY": 2, "width": 3, "height": 4}})
    };
    let class = class::find("chroma.ChromaFilter").expect("described");
    let args = constructor_args(class, Some(&window("chroma")), &objects).expect("accepted");
    let corner = |args: &Args| match &args[1] {
        Some(Arg::Register(members)) => i32::from_arg(members[0].clone()),
        other => panic!("no register but {other:?}"),
    };
    assert_eq!(corner(&args), 1);
    let error = refused_to_create("chroma.ChromaFilter", window("pointerdetector"));
    assert_eq!(error, (40003, "Type WindowParam is not compatible".to_owned()));
}

#[test]
fn a_pair_of_candidates_has_its_old_names_too() {
    let pair = IceCandidatePair {
        stream_id: "1".to_owned(),
        component_id: 2,
        local_candidate: "a".to_owned(),
        remote_candidate: "b".to_owned(),
    };
    assert_eq!(
        pair.into_value(),
        json!({"__module__": "kurento", "__type__": "IceCandidatePair", "streamId": "1",
            "streamID": "1", "componentId": 2, "componentID": 2,
            "localCandidate": "a", "remoteCandidate": "b"})
    );
}
