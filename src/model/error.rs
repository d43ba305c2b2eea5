//! Errors with the codes, names and texts that clients know.

use super::id::ObjectId;

/// Why a request on a remote object failed. Codes 40000 to 49999 are Kurento's catalogue.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RemoteError {
    #[error("'{0}' is required")]
    Required(&'static str),
    #[error("'{0}' should be an object")]
    NotAnObject(&'static str),
    #[error("'{name}' parameter should be a {kind}")]
    Parameter { name: String, kind: &'static str },
    #[error("'{name}' property should be a {kind}")]
    Member { name: String, kind: &'static str },
    #[error("Invalid value for '{0}'")]
    EnumValue(&'static str),
    #[error("Type {name} does not exist in module {module}")]
    UnknownType { name: String, module: String },
    #[error("Type {0} is not compatible")]
    IncompatibleType(String),
    #[error("Media elements do not share pipeline")]
    OtherPipeline,
    #[error("{0}")]
    Connect(&'static str),
    #[error("{0}")]
    UnsupportedMediaType(&'static str),
    #[error("{0}")]
    NotImplemented(String),
    #[error("Invalid session")]
    InvalidSession,
    #[error("{0}")]
    Malformed(String),
    #[error("Method '{operation}' with {count} parameters not found")]
    MethodNotFound { operation: String, count: usize },
    #[error("{0}")]
    NotEnoughResources(String),
    #[error("Object '{0}' not found")]
    ObjectNotFound(String),
    #[error(
        "Object '{0}' not found. Possibly using a transactional object without committing the transaction."
    )]
    Uncommitted(String),
    #[error("Event '{0}' not supported")]
    EventNotSupported(String),
    #[error("{0}")]
    IllegalParameter(String),
    #[error("Factory '{0}' not found")]
    FactoryNotFound(String),
    #[error("Tag key not found")]
    TagNotFound,
    #[error("{0}")]
    OperationNotSupported(&'static str),
    #[error("{0}")]
    Sdp(SdpFailure),
    #[error("{0}")]
    Gathering(&'static str),
    #[error("Error adding candidate")]
    AddCandidate,
    #[error("Requested kmd module doesn't exist")]
    ModuleNotFound,
    #[error("Unexpected error while processing method: {0}")]
    Internal(String),
}

/// What went wrong in an offer/answer exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SdpFailure {
    #[error("Error parsing SDP")]
    Syntax,
    #[error("Invalid SDP")]
    Invalid,
    #[error("Empty offer not valid")]
    EmptyOffer,
    #[error("Empty answer not valid")]
    EmptyAnswer,
    #[error("No local SDP")]
    NoLocal,
    #[error("No remote SDP")]
    NoRemote,
    #[error("Error generating offer")]
    GenerateOffer,
    #[error("Error processing offer")]
    ProcessOffer,
    #[error("Error processing answer")]
    ProcessAnswer,
    #[error("Endpoint already negotiated")]
    AlreadyNegotiated,
    #[error("Offer not generated. It is not possible to process an answer.")]
    NotOffered,
    #[error("Sdp Answer already processed")]
    AlreadyAnswered,
    #[error("Cannot create session")]
    CreateSession,
}

impl RemoteError {
    /// The code on the wire.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Required(_)
            | Self::NotAnObject(_)
            | Self::Parameter { .. }
            | Self::Member { .. }
            | Self::EnumValue(_) => 40001,
            Self::UnknownType { .. } | Self::IncompatibleType(_) => 40003,
            Self::OtherPipeline | Self::Connect(_) => 40004,
            Self::UnsupportedMediaType(_) => 40005,
            Self::NotImplemented(_) => 40006,
            Self::InvalidSession => 40007,
            Self::Malformed(_) | Self::MethodNotFound { .. } => 40008,
            Self::NotEnoughResources(_) => 40009,
            Self::ObjectNotFound(_) => 40101,
            Self::EventNotSupported(_) => 40106,
            Self::IllegalParameter(_) => 40107,
            Self::FactoryNotFound(_) => 40108,
            Self::Uncommitted(_) => 40109,
            Self::TagNotFound => 40110,
            Self::OperationNotSupported(_) => 40111,
            Self::Sdp(failure) => failure.code(),
            Self::Gathering(_) => 40400,
            Self::AddCandidate => 40401,
            Self::ModuleNotFound => 40500,
            Self::Internal(_) => -32603,
        }
    }

    /// `error.data.type` on the wire; none outside the catalogue.
    pub const fn name(&self) -> Option<&'static str> {
        Some(match self.code() {
            40001 => "MARSHALL_ERROR",
            40003 => "UNEXPECTED_ERROR",
            40004 => "CONNECT_ERROR",
            40005 => "UNSUPPORTED_MEDIA_TYPE",
            40006 => "NOT_IMPLEMENTED",
            40007 => "INVALID_SESSION",
            40008 => "MALFORMED_TRANSACTION",
            40009 => "NOT_ENOUGH_RESOURCES",
            40101 => "MEDIA_OBJECT_NOT_FOUND",
            40106 => "MEDIA_OBJECT_EVENT_NOT_SUPPORTED",
            40107 => "MEDIA_OBJECT_ILLEGAL_PARAM_ERROR",
            40108 => "MEDIA_OBJECT_NOT_AVAILABLE",
            40109 => "MEDIA_OBJECT_NOT_FOUND_TRANSACTION_NO_COMMIT",
            40110 => "MEDIA_OBJECT_TAG_KEY_NOT_FOUND",
            40111 => "MEDIA_OBJECT_OPERATION_NOT_SUPPORTED",
            40201 => "SDP_PARSE_ERROR",
            40202 => "SDP_END_POINT_NO_LOCAL_SDP_ERROR",
            40203 => "SDP_END_POINT_NO_REMOTE_SDP_ERROR",
            40204 => "SDP_END_POINT_GENERATE_OFFER_ERROR",
            40205 => "SDP_END_POINT_PROCESS_OFFER_ERROR",
            40206 => "SDP_END_POINT_PROCESS_ANSWER_ERROR",
            40208 => "SDP_END_POINT_ALREADY_NEGOTIATED",
            40209 => "SDP_END_POINT_NOT_OFFER_GENERATED",
            40210 => "SDP_END_POINT_ANSWER_ALREADY_PROCCESED",
            40211 => "SDP_END_POINT_CANNOT_CREATE_SESSON",
            40400 => "ICE_GATHER_CANDIDATES_ERROR",
            40401 => "ICE_ADD_CANDIDATE_ERROR",
            -32603 => return None,
            _ => "UNDEFINED",
        })
    }

    pub fn not_found(id: &ObjectId) -> Self {
        Self::ObjectNotFound(id.to_string())
    }
}

impl SdpFailure {
    const fn code(self) -> i32 {
        match self {
            Self::Syntax | Self::Invalid | Self::EmptyOffer | Self::EmptyAnswer => 40201,
            Self::NoLocal => 40202,
            Self::NoRemote => 40203,
            Self::GenerateOffer => 40204,
            Self::ProcessOffer => 40205,
            Self::ProcessAnswer => 40206,
            Self::AlreadyNegotiated => 40208,
            Self::NotOffered => 40209,
            Self::AlreadyAnswered => 40210,
            Self::CreateSession => 40211,
        }
    }
}

impl From<SdpFailure> for RemoteError {
    fn from(failure: SdpFailure) -> Self {
        Self::Sdp(failure)
    }
}
