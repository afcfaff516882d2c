//! The two root objects. Each field is one line that hands on to its topic's own file.

use juniper::{ID, graphql_object};

use super::access::{Answer, Context};
use super::agents::{self, LaunchAgent};
use super::artifacts::{self, Artifact, ArtifactCollectionValue};
use super::configs;
use super::entities::{self, Entity, ServerInfo, User};
use super::files;
use super::items;
use super::projects::{self, Project, ProjectConnection};
use super::queues::{self, SuccessPayload};
use super::runs;
use super::scalars::Scalar;

/// What can be asked.
pub struct Query;

#[graphql_object(context = Context, scalar = Scalar)]
impl Query {
    fn viewer(context: &Context) -> User {
        entities::viewer(context)
    }

    fn server_info() -> ServerInfo {
        ServerInfo
    }

    fn entity(context: &Context, name: Option<String>) -> Option<Entity> {
        entities::entity(context, name)
    }

    fn project(
        context: &Context,
        name: Option<String>,
        entity_name: Option<String>,
    ) -> Answer<Option<Project>> {
        projects::project(context, name, entity_name)
    }

    /// An older word for a project.
    fn model(
        context: &Context,
        name: Option<String>,
        entity_name: Option<String>,
    ) -> Answer<Option<Project>> {
        projects::project(context, name, entity_name)
    }

    fn models(
        context: &Context,
        entity_name: Option<String>,
        after: Option<String>,
        first: Option<i32>,
    ) -> Answer<Option<ProjectConnection>> {
        projects::of_entity(context, entity_name, after.as_deref(), first).map(Some)
    }

    fn artifact(context: &Context, id: ID) -> Answer<Option<Artifact>> {
        artifacts::with_id(context, &id)
    }

    fn artifact_collection(context: &Context, id: ID) -> Answer<Option<ArtifactCollectionValue>> {
        artifacts::collection_with_id(context, &id)
    }

    #[graphql(name = "clientIDMapping")]
    fn client_id_mapping(
        context: &Context,
        #[graphql(name = "clientID")] client_id: ID,
    ) -> Answer<Option<artifacts::ClientIdMapping>> {
        artifacts::of_client(context, &client_id)
    }

    fn launch_agent(context: &Context, id: ID) -> Answer<Option<LaunchAgent>> {
        agents::launch_agent(context, &id)
    }
}

/// What can be changed.
pub struct Mutation;

#[graphql_object(context = Context, scalar = Scalar)]
impl Mutation {
    fn upsert_model(
        context: &Context,
        input: projects::UpsertModelInput,
    ) -> Answer<Option<projects::UpsertModelPayload>> {
        projects::upsert(context, input)
    }

    fn create_default_resource_config(
        context: &Context,
        input: configs::CreateDefaultResourceConfigInput,
    ) -> Answer<Option<configs::CreateDefaultResourceConfigPayload>> {
        configs::create(context, input).map(Some)
    }

    fn create_run_queue(
        context: &Context,
        input: queues::CreateRunQueueInput,
    ) -> Answer<Option<queues::CreateRunQueuePayload>> {
        queues::create(context, input).map(Some)
    }

    fn upsert_run_queue(
        context: &Context,
        input: queues::UpsertRunQueueInput,
    ) -> Answer<Option<queues::UpsertRunQueuePayload>> {
        queues::upsert(context, input).map(Some)
    }

    fn delete_run_queues(
        context: &Context,
        input: queues::DeleteRunQueuesInput,
    ) -> Answer<Option<SuccessPayload>> {
        queues::delete(context, input).map(Some)
    }

    fn push_to_run_queue_by_name(
        context: &Context,
        input: items::PushToRunQueueByNameInput,
    ) -> Answer<Option<items::PushToRunQueueByNamePayload>> {
        items::push_by_name(context, input)
    }

    fn push_to_run_queue(
        context: &Context,
        input: items::PushToRunQueueInput,
    ) -> Answer<Option<items::PushToRunQueueByNamePayload>> {
        items::push_by_id(context, input).map(Some)
    }

    fn delete_from_run_queue(
        context: &Context,
        input: items::DeleteFromRunQueueInput,
    ) -> Answer<Option<SuccessPayload>> {
        items::delete(context, input).map(Some)
    }

    fn create_launch_agent(
        context: &Context,
        input: agents::CreateLaunchAgentInput,
    ) -> Answer<Option<agents::CreateLaunchAgentPayload>> {
        agents::create(context, input).map(Some)
    }

    fn update_launch_agent(
        context: &Context,
        input: agents::UpdateLaunchAgentInput,
    ) -> Answer<Option<SuccessPayload>> {
        agents::update(context, input).map(Some)
    }

    fn pop_from_run_queue(
        context: &Context,
        input: agents::PopFromRunQueueInput,
    ) -> Answer<Option<agents::PopFromRunQueuePayload>> {
        agents::pop(context, input)
    }

    fn ack_run_queue_item(
        context: &Context,
        input: agents::AckRunQueueItemInput,
    ) -> Answer<Option<SuccessPayload>> {
        agents::ack(context, input).map(Some)
    }

    fn fail_run_queue_item(
        context: &Context,
        input: agents::RunQueueItemMessageInput,
    ) -> Answer<Option<SuccessPayload>> {
        agents::fail(context, input).map(Some)
    }

    fn update_run_queue_item_warning(
        context: &Context,
        input: agents::RunQueueItemMessageInput,
    ) -> Answer<Option<SuccessPayload>> {
        agents::warn(context, input).map(Some)
    }

    fn stop_run(context: &Context, input: runs::StopRunInput) -> Answer<Option<SuccessPayload>> {
        runs::stop(context, input).map(Some)
    }

    fn upsert_bucket(
        context: &Context,
        input: runs::UpsertBucketInput,
    ) -> Answer<Option<runs::UpsertBucketPayload>> {
        runs::upsert(context, input).map(Some)
    }

    fn delete_run(
        context: &Context,
        input: runs::DeleteRunInput,
    ) -> Answer<Option<SuccessPayload>> {
        runs::delete(context, input).map(Some)
    }

    fn update_run_state(
        context: &Context,
        input: runs::UpdateRunStateInput,
    ) -> Answer<Option<SuccessPayload>> {
        runs::update_state(context, input).map(Some)
    }

    fn create_run_files(
        context: &Context,
        input: files::CreateRunFilesInput,
    ) -> Answer<Option<files::CreateRunFilesPayload>> {
        files::create(context, input).map(Some)
    }

    fn delete_files(
        context: &Context,
        input: files::DeleteFilesInput,
    ) -> Answer<Option<SuccessPayload>> {
        files::delete(context, input).map(Some)
    }

    fn create_artifact(
        context: &Context,
        input: artifacts::CreateArtifactInput,
    ) -> Answer<Option<artifacts::CreateArtifactPayload>> {
        artifacts::create(context, input).map(Some)
    }

    fn create_artifact_manifest(
        context: &Context,
        input: artifacts::CreateArtifactManifestInput,
    ) -> Answer<Option<artifacts::CreateArtifactManifestPayload>> {
        artifacts::create_manifest(context, input).map(Some)
    }

    fn update_artifact_manifest(
        context: &Context,
        input: artifacts::UpdateArtifactManifestInput,
    ) -> Answer<Option<artifacts::CreateArtifactManifestPayload>> {
        artifacts::update_manifest(context, input).map(Some)
    }

    fn create_artifact_files(
        context: &Context,
        input: artifacts::CreateArtifactFilesInput,
    ) -> Answer<Option<artifacts::CreateArtifactFilesPayload>> {
        artifacts::create_files(context, input).map(Some)
    }

    fn commit_artifact(
        context: &Context,
        input: artifacts::CommitArtifactInput,
    ) -> Answer<Option<artifacts::CreateArtifactPayload>> {
        artifacts::commit(context, input).map(Some)
    }

    fn use_artifact(
        context: &Context,
        input: artifacts::UseArtifactInput,
    ) -> Answer<Option<artifacts::CreateArtifactPayload>> {
        artifacts::use_it(context, input).map(Some)
    }

    fn update_artifact(
        context: &Context,
        input: artifacts::UpdateArtifactInput,
    ) -> Answer<Option<artifacts::CreateArtifactPayload>> {
        artifacts::update(context, input).map(Some)
    }

    fn delete_artifact(
        context: &Context,
        input: artifacts::DeleteArtifactInput,
    ) -> Answer<Option<artifacts::CreateArtifactPayload>> {
        artifacts::delete(context, input).map(Some)
    }

    fn add_aliases(
        context: &Context,
        input: artifacts::AddAliasesInput,
    ) -> Answer<Option<SuccessPayload>> {
        artifacts::add_aliases(context, input).map(Some)
    }

    fn delete_aliases(
        context: &Context,
        input: artifacts::DeleteAliasesInput,
    ) -> Answer<Option<SuccessPayload>> {
        artifacts::delete_aliases(context, input).map(Some)
    }
}
