//! A client of gRPC reflection that asks as tools do: for the names of services, then for all that they mention.

use std::collections::BTreeMap;

use prost::Message as _;
use tollgate_proto::prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

/// Which version of the protocol is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What older tools ask.
    V1Alpha,
    /// Today's.
    V1,
}

/// A question.
#[derive(Debug, Clone)]
enum Question {
    Services,
    FileOf(String),
    File(String),
}

/// An answer.
#[derive(Debug)]
enum Answer {
    Services(Vec<String>),
    Files(Vec<Vec<u8>>),
}

/// The names of all services.
///
/// # Panics
/// Where the answer is one to another question.
pub async fn services(channel: &Channel, version: Version) -> Result<Vec<String>, Status> {
    let Answer::Services(mut names) = ask(channel, version, Question::Services).await? else {
        panic!("no list of services")
    };
    names.sort();
    Ok(names)
}

/// The file that has this symbol and every file that it mentions, by name.
///
/// # Panics
/// Where what is sent is no file's descriptor.
pub async fn files_of(
    channel: &Channel,
    version: Version,
    symbol: &str,
) -> Result<BTreeMap<String, FileDescriptorProto>, Status> {
    let mut files = BTreeMap::new();
    let mut questions = vec![Question::FileOf(symbol.to_owned())];
    while let Some(question) = questions.pop() {
        let Answer::Files(sent) = ask(channel, version, question).await? else { panic!("no files") };
        for bytes in sent {
            let file = FileDescriptorProto::decode(&*bytes).expect("a file's descriptor");
            let missing = file.dependency.iter().filter(|name| !files.contains_key(*name));
            questions.extend(missing.cloned().map(Question::File));
            files.insert(file.name().to_owned(), file);
        }
    }
    Ok(files)
}

/// The two versions differ in their package alone.
macro_rules! ask {
    ($version:ident, $channel:expr, $question:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;

        let message_request = Some(match $question {
            Question::Services => MessageRequest::ListServices(String::new()),
            Question::FileOf(symbol) => MessageRequest::FileContainingSymbol(symbol),
            Question::File(name) => MessageRequest::FileByFilename(name),
        });
        let request = $version::ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new($channel.clone());
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
        let answer = answers.message().await?.and_then(|answer| answer.message_response);
        match answer {
            Some(MessageResponse::ListServicesResponse(list)) => {
                Ok(Answer::Services(list.service.into_iter().map(|service| service.name).collect()))
            }
            Some(MessageResponse::FileDescriptorResponse(files)) => {
                Ok(Answer::Files(files.file_descriptor_proto))
            }
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(Status::new(Code::from(error.error_code), error.error_message))
            }
            other => panic!("{other:?}"),
        }
    }};
}

async fn ask(channel: &Channel, version: Version, question: Question) -> Result<Answer, Status> {
    match version {
        Version::V1 => ask!(v1, channel, question),
        Version::V1Alpha => ask!(v1alpha, channel, question),
    }
}
