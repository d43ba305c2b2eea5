// What is published: a picture that moves and has noise everywhere, so that an encoder uses all that it is
// allowed. It is made once, by ffmpeg, and Chromium plays it as its camera.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SECONDS = 8;
const FOLDER = join(tmpdir(), 'rivero-network');

/** The flag that gives Chromium such a camera; `size` is `WIDTHxHEIGHT`. */
export function camera(size, { rate = 30, noise = 24 } = {}) {
  mkdirSync(FOLDER, { recursive: true });
  const file = join(FOLDER, `${size}-${rate}-${noise}.y4m`);
  if (!existsSync(file)) {
    const made = `${file}.part`;
    const picture = `testsrc2=size=${size}:rate=${rate}:duration=${SECONDS},noise=alls=${noise}:allf=t+u,format=yuv420p`;
    execFileSync('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', picture, '-f', 'yuv4mpegpipe', made], { stdio: 'inherit' });
    renameSync(made, file);
  }
  return `--use-file-for-fake-video-capture=${file}`;
}
