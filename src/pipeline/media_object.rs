//! Operations of MediaObject and MediaPipeline, which need no more than the object and the pipeline.

use super::call::Call;
use crate::model::types::{GstreamerDotDetails, Tag};
use crate::model::{Object, ObjectId, RemoteError};

type Result<T> = std::result::Result<T, RemoteError>;

impl Call<'_> {
    fn object(&self) -> &Object {
        &self.pipeline.objects[self.key].object
    }

    fn object_mut(&mut self) -> &mut Object {
        &mut self.pipeline.objects[self.key].object
    }

    pub fn get_id(&self) -> Result<String> {
        Ok(self.object().id.to_string())
    }

    pub fn get_media_pipeline(&self) -> Result<Option<ObjectId>> {
        Ok(Some(self.pipeline.objects[self.pipeline.root].object.id.clone()))
    }

    pub fn get_parent(&self) -> Result<Option<ObjectId>> {
        Ok(self.object().parent.clone())
    }

    pub fn get_children(&self) -> Result<Vec<ObjectId>> {
        Ok(self.pipeline.children_of(self.key))
    }

    pub fn get_name(&self) -> Result<String> {
        Ok(self.object().name().to_owned())
    }

    pub fn set_name(&mut self, name: String) -> Result<()> {
        let limits = self.net.object_limits.clone();
        self.object_mut().set_name(name, &limits)
    }

    pub fn get_send_tags_in_events(&self) -> Result<bool> {
        Ok(self.object().send_tags_in_events)
    }

    pub fn set_send_tags_in_events(&mut self, send: bool) -> Result<()> {
        self.object_mut().send_tags_in_events = send;
        Ok(())
    }

    pub fn get_creation_time(&self) -> Result<i32> {
        Ok(self.object().creation_time)
    }

    pub fn add_tag(&mut self, key: String, value: String) -> Result<()> {
        let limits = self.net.object_limits.clone();
        self.object_mut().add_tag(key, value, &limits)
    }

    pub fn remove_tag(&mut self, key: String) -> Result<()> {
        let limits = self.net.object_limits.clone();
        self.object_mut().remove_tag(&key, &limits);
        Ok(())
    }

    pub fn get_tag(&self, key: String) -> Result<String> {
        self.object().tag(&key)
    }

    pub fn get_tags(&self) -> Result<Vec<Tag>> {
        Ok(self.object().tags())
    }

    pub fn get_latency_stats(&self) -> Result<bool> {
        Ok(self.pipeline.latency_stats)
    }

    pub fn set_latency_stats(&mut self, measure: bool) -> Result<()> {
        self.pipeline.latency_stats = measure;
        self.pipeline.router.measure_latencies(measure);
        Ok(())
    }

    /// The graph for Graphviz: a cluster for each element, an edge for each connection.
    pub fn get_gstreamer_dot(&self, details: Option<GstreamerDotDetails>) -> Result<String> {
        Ok(self.pipeline.dot(self.at, self.key, details))
    }

    /// Writes nothing: there is no directory for such files.
    pub fn dump_gstreamer_dot(&self, _: Option<GstreamerDotDetails>) -> Result<()> {
        tracing::info!("no directory for graphs is configured; getGstreamerDot gives the text");
        Ok(())
    }
}
