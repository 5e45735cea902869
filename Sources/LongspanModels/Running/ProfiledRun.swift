import Longspan
import LongspanKernels

/// A run of a model whose kernel calls were recorded: a prompt is read, then tokens are generated after it.
///
/// ```swift
/// let run = try ProfiledRun(of: model, prompt: tokens, generating: 32)
/// for call in run.recording.calls { print(call.tag, call.name, call.nanoseconds) }
/// ```
public struct ProfiledRun: Sendable {
  /// Reading the prompt and drawing the first token ("prefill"); if tokens are generated, running each through the model
  /// and drawing the next ("decode").
  public let phases: [KernelRecording.Phase]
  /// The calls of both phases; their tags are those of ``ModelSequence/read(_:workspace:)``.
  public let recording: KernelRecording

  /// More kernel calls than a layer makes, and than embedding and output make together.
  private static let mostCallsPerLayer = 16

  /// Runs the model, greedily and past its end-of-text tokens.
  ///
  /// One token is read before, without being recorded, so that the model file's pages are in memory.
  ///
  /// - Parameters:
  ///   - prompt: at least one token.
  ///   - generated: tokens to run through the model after the prompt.
  ///   - chunk: tokens of the prompt read at once.
  ///   - policy: decides what the cache keeps.
  ///   - cacheType: how keys and values are stored.
  ///   - progress: called after each chunk and each generated token.
  /// - Throws: ``/LongspanKernels/LongspanError``, also if the model's context is being recorded already.
  public init(
    of model: any LanguageModel, prompt: [Int32], generating generated: Int, chunk: Int = 512,
    policy: any KVCachePolicy = DensePolicy(), cacheType: ElementType = .f32,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) {
    guard !prompt.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
    guard chunk > 0 else { throw LongspanError(.invalidArgument, "chunk: \(chunk) is below 1") }
    guard generated >= 0 else {
      throw LongspanError(.invalidArgument, "\(generated) tokens to generate are below 0")
    }
    let chunks = (prompt.count - 1) / chunk + 1
    let (steps, overflow) = chunks.addingReportingOverflow(generated)
    let perStep = (model.layerCount + 1) * Self.mostCallsPerLayer
    let (capacity, overflowCapacity) = steps.multipliedReportingOverflow(by: perStep)
    let (tokens, overflowTokens) = prompt.count.addingReportingOverflow(generated)
    guard !overflow, !overflowCapacity, !overflowTokens else {
      throw LongspanError(.overflow, "\(generated) tokens to generate do not fit in 64 bits")
    }
    var generator = try Generator(
      model, sampling: .greedy, seed: 0, policy: policy, cacheType: cacheType, capacity: tokens,
      ignoringEnd: true)
    try generator.requireMemory(forReading: tokens)
    try model.warmUp(cacheType: cacheType)

    let profile = try KernelProfile(of: model.context, capacity: capacity)
    let start = KernelProfile.clock
    try generator.read(prompt, chunk: chunk, progress: progress)
    _ = try generator.next()
    let middle = KernelProfile.clock
    for index in 0..<generated {
      _ = try generator.next()
      try report(
        ProgressUpdate(stage: "generating", completed: index + 1, total: generated), to: progress)
    }
    let end = KernelProfile.clock
    recording = profile.stop()
    let prefill = KernelRecording.Phase(
      "prefill", start: start, end: middle, tokens: prompt.count, steps: chunks)
    let decode = KernelRecording.Phase("decode", start: middle, end: end, tokens: generated, steps: generated)
    phases = generated > 0 ? [prefill, decode] : [prefill]
  }
}
