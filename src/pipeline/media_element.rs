//! Operations of MediaElement: connections, formats, what flows.

use serde_json::{Map, Value};

use super::Pipeline;
use super::call::Call;
use super::graph::{Connection, DEFAULT};
use crate::elements::{EncoderBitrates, Moment, index, kind_of};
use crate::model::types::event::{ElementConnected, ElementDisconnected};
use crate::model::types::{AudioCaps, ElementConnectionData, MediaType, VideoCaps};
use crate::model::{Event, ObjectId, RemoteError};

type Result<T> = std::result::Result<T, RemoteError>;

/// The order in which a connection without a type is made.
const ALL: [MediaType; 3] = [MediaType::Audio, MediaType::Video, MediaType::Data];

/// Bytes of a media description that a client may choose.
const MAX_DESCRIPTION: usize = 1_024;

impl Call<'_> {
    pub fn connect(
        &mut self,
        sink: ObjectId,
        media: Option<MediaType>,
        source_description: Option<String>,
        sink_description: Option<String>,
    ) -> Result<()> {
        for connection in self.connections(&sink, media, source_description, sink_description)? {
            // Connecting again what is connected is told as the original tells it; no packet is
            // lost, for the route stays.
            let replaced = self.pipeline.graph.connect(connection.clone()).map_err(|_| {
                RemoteError::NotEnoughResources("Reached media descriptions limit".to_owned())
            })?;
            self.pipeline.stale.connected(&connection);
            if let Some(old) = replaced {
                self.pipeline.stale.connected(&old);
                self.pipeline.raise_disconnected(self.at, self.events, &old);
            }
            self.raise(ElementConnected {
                sink: sink.clone(),
                media_type: connection.media,
                source_media_description: connection.source_description,
                sink_media_description: connection.sink_description,
            });
        }
        Ok(())
    }

    /// The event is raised even when nothing was connected.
    pub fn disconnect(
        &mut self,
        sink: ObjectId,
        media: Option<MediaType>,
        source_description: Option<String>,
        sink_description: Option<String>,
    ) -> Result<()> {
        for connection in self.connections(&sink, media, source_description, sink_description)? {
            if self.pipeline.graph.disconnect(&connection) {
                self.pipeline.stale.connected(&connection);
            }
            self.pipeline.raise_disconnected(self.at, self.events, &connection);
        }
        Ok(())
    }

    /// The connections that the parameters of connect and disconnect stand for.
    fn connections(
        &self,
        sink: &ObjectId,
        media: Option<MediaType>,
        source_description: Option<String>,
        sink_description: Option<String>,
    ) -> Result<Vec<Connection>> {
        let sink = self.neighbour(sink)?;
        let described = |text: Option<String>| match text {
            Some(text) if text.len() > MAX_DESCRIPTION => Err(RemoteError::IllegalParameter(
                format!("A media description is longer than {MAX_DESCRIPTION} bytes"),
            )),
            Some(text) => Ok(text),
            None => Ok(DEFAULT.to_owned()),
        };
        let source_description = described(source_description)?;
        let sink_description = described(sink_description)?;
        let media = media.map_or(ALL.to_vec(), |media| vec![media]);
        let connection = |media| Connection {
            source: self.key,
            sink,
            media,
            source_description: source_description.clone(),
            sink_description: sink_description.clone(),
        };
        Ok(media.into_iter().map(connection).collect())
    }

    pub fn get_source_connections(
        &self,
        media: Option<MediaType>,
        description: Option<String>,
    ) -> Result<Vec<ElementConnectionData>> {
        let list = self.pipeline.graph.sources_of(self.key);
        let fits = |known: &Connection| match &description {
            Some(wanted) => known.sink_description == *wanted,
            None => true,
        };
        Ok(self.pipeline.describe(list, media, fits))
    }

    pub fn get_sink_connections(
        &self,
        media: Option<MediaType>,
        description: Option<String>,
    ) -> Result<Vec<ElementConnectionData>> {
        let list = self.pipeline.graph.sinks_of(self.key);
        let fits = |known: &Connection| match &description {
            Some(wanted) => known.source_description == *wanted,
            None => true,
        };
        Ok(self.pipeline.describe(list, media, fits))
    }

    /// Nothing is transcoded, so there is no format to force: streams leave as they come.
    pub fn set_audio_format(&mut self, caps: AudioCaps) -> Result<()> {
        tracing::warn!(
            codec = caps.codec.as_str(),
            "audio leaves as it comes, whatever format is set"
        );
        Ok(())
    }

    /// As [`Self::set_audio_format`].
    pub fn set_video_format(&mut self, caps: VideoCaps) -> Result<()> {
        tracing::warn!(
            codec = caps.codec.as_str(),
            "video leaves as it comes, whatever format is set"
        );
        Ok(())
    }

    pub fn get_stats(&mut self, media: Option<MediaType>) -> Result<Map<String, Value>> {
        let mut entries = self.with_body(|body, cx| body.node().stats(cx, media));
        entries.extend(self.latencies(media));
        Ok(entries)
    }

    pub fn is_media_flowing_in(&self, media: MediaType, description: String) -> Result<bool> {
        let Some(kind) = kind_of(media) else {
            return Err(no_data_in("MediaFlowingIn"));
        };
        let element = &self.pipeline.objects[self.key].element;
        Ok(description == DEFAULT && element.flow_in[index(kind)])
    }

    pub fn is_media_flowing_out(&self, media: MediaType, description: String) -> Result<bool> {
        let Some(kind) = kind_of(media) else {
            return Err(no_data_in("MediaFlowingOut"));
        };
        let element = &self.pipeline.objects[self.key].element;
        Ok(description == DEFAULT && element.flow_out[index(kind)])
    }

    /// Never, as long as all streams leave as they come.
    pub fn is_media_transcoding(&self, media: MediaType, _bin_name: String) -> Result<bool> {
        if kind_of(media).is_none() {
            return Err(no_data_in("MediaTranscoding"));
        }
        Ok(false)
    }

    fn bitrates(&mut self) -> &mut EncoderBitrates {
        &mut self.pipeline.objects[self.key].element.bitrates
    }

    pub fn get_encoder_bitrate(&mut self) -> Result<i32> {
        Ok(self.bitrates().target())
    }

    pub fn set_encoder_bitrate(&mut self, bps: i32) -> Result<()> {
        self.bitrates().set_target(bps);
        Ok(())
    }

    pub fn get_min_encoder_bitrate(&mut self) -> Result<i32> {
        Ok(self.bitrates().min())
    }

    pub fn set_min_encoder_bitrate(&mut self, bps: i32) -> Result<()> {
        self.bitrates().set_min(bps);
        Ok(())
    }

    pub fn get_max_encoder_bitrate(&mut self) -> Result<i32> {
        Ok(self.bitrates().max())
    }

    pub fn set_max_encoder_bitrate(&mut self, bps: i32) -> Result<()> {
        self.bitrates().set_max(bps);
        Ok(())
    }

    pub fn set_output_bitrate(&mut self, bps: i32) -> Result<()> {
        // The old limits must not cut the new ones.
        self.bitrates().set_max(0);
        self.bitrates().set_min(bps);
        self.bitrates().set_max(bps);
        Ok(())
    }
}

fn no_data_in(operation: &str) -> RemoteError {
    RemoteError::IllegalParameter(format!("Media type DATA is not supported for {operation}"))
}

impl Pipeline {
    /// Raises `ElementDisconnected` on the source of a connection that is no more.
    pub(super) fn raise_disconnected(
        &self,
        at: Moment,
        events: &mut Vec<Event>,
        connection: &Connection,
    ) {
        let (Some(source), Some(sink)) =
            (self.objects.get(connection.source), self.objects.get(connection.sink))
        else {
            return;
        };
        events.push(source.object.event(
            at.unix_millis,
            ElementDisconnected {
                sink: sink.object.id.clone(),
                media_type: connection.media,
                source_media_description: connection.source_description.clone(),
                sink_media_description: connection.sink_description.clone(),
            },
        ));
    }

    fn describe(
        &self,
        list: Vec<Connection>,
        media: Option<MediaType>,
        fits: impl Fn(&Connection) -> bool,
    ) -> Vec<ElementConnectionData> {
        list.into_iter()
            .filter(|known| media.is_none_or(|media| known.media == media) && fits(known))
            .map(|known| ElementConnectionData {
                source: self.objects[known.source].object.id.clone(),
                sink: self.objects[known.sink].object.id.clone(),
                r#type: known.media,
                source_description: known.source_description,
                sink_description: known.sink_description,
            })
            .collect()
    }
}
