import ArgumentParser
import Foundation
import Longspan
import LongspanKernels
import LongspanModels

struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Generates text from a prompt, as it is drawn.",
    discussion: "Without sampling options the likeliest token is taken each time (greedy).")

  @OptionGroup var model: ModelOptions
  @OptionGroup var cache: CacheOptions
  @OptionGroup var filter: FilterOptions

  @Option(
    help: ArgumentHelp("How tokens are computed: \(DecodingOption.help).", valueName: "method"))
  var decode = "plain"

  @Option(name: .shortAndLong, help: "The prompt.")
  var prompt: String?

  @Option(help: "A UTF-8 file with the prompt.")
  var promptFile: String?

  @Option(help: "Read only the first N tokens of the prompt, which must have them.")
  var promptTokens: Int?

  @Flag(
    help:
      "Wrap the prompt as the user's turn of a chat, by the model's template. Special tokens spelled in it act as such."
  )
  var chat = false

  @Option(help: "The system message of a chat, instead of the template's own.")
  var system: String?

  @Option(name: [.customShort("n"), .long], help: "The most tokens to generate.")
  var maxTokens = 256

  @Option(help: "Tokens that prompt and answer may take together; by default what fits.")
  var context: Int?

  @Option(help: "Temperature; 0 takes the likeliest token.")
  var temperature: Float = 0

  @Option(help: "Draw from the K likeliest tokens only; 0 for all.")
  var topK = 0

  @Option(help: "Draw from the fewest tokens whose probabilities reach P.")
  var topP: Float = 1

  @Option(help: "Draw from tokens at least P times as likely as the likeliest.")
  var minP: Float = 0

  @Option(help: "Seed of the draws.")
  var seed: UInt64 = 0

  @Flag(help: "Go on after the model's end-of-text tokens.")
  var ignoreEnd = false

  @Flag(help: "Print one JSON object instead of the text.")
  var json = false

  func validate() throws {
    guard maxTokens >= 0 else { throw ValidationError("--max-tokens \(maxTokens) is below 0") }
    guard context.map({ $0 > 0 }) ?? true else { throw ValidationError("--context must be at least 1") }
    guard promptTokens.map({ $0 > 0 }) ?? true else {
      throw ValidationError("--prompt-tokens must be at least 1")
    }
  }

  func run() throws {
    let policy = try cache.policy()
    let method = try DecodingOption.method(decode)
    let text = try promptText()
    let model = try model.load()
    let tokens = try tokens(of: text, model)
    guard !tokens.isEmpty else { throw LongspanError(.invalidText, "the prompt has no tokens") }
    let (needed, overflow) = tokens.count.addingReportingOverflow(maxTokens)
    guard !overflow else {
      throw LongspanError(.invalidArgument, "--max-tokens \(maxTokens) is out of range")
    }
    if let context, needed > context {
      throw LongspanError(
        .invalidArgument,
        "\(tokens.count) tokens of prompt and \(maxTokens) to generate do not fit a context of \(context)")
    }
    var options = SequenceOptions(
      policy: policy, cacheType: cache.cacheType, capacity: needed,
      timeSteps: try filter.policy(model, self.model))
    options.prepare(for: method)
    var generator = try Generator(
      model, sequence: model.makeSequence(options),
      sampling: SamplingOptions(temperature: temperature, topK: topK, topP: topP, minP: minP), seed: seed,
      drafter: method.makeDrafter(), ignoringEnd: ignoreEnd)
    generator.tokenLimit = maxTokens
    try generator.requireMemory(forReading: context ?? needed)

    let clock = ContinuousClock()
    let started = clock.now
    let bar = ProgressBar(unit: "tokens")
    try generator.read(tokens, chunk: cache.chunk, progress: bar.update)
    bar.clear()
    let read = clock.now
    var answer = ""
    while generator.generated.count < maxTokens, let piece = try generator.next() {
      emit(piece, &answer)
    }
    emit(generator.finish(), &answer)
    let report = GenerationReport(
      text: answer, filter: filter.filter, method: method, generator: generator, promptTokens: tokens.count,
      promptSeconds: seconds(read - started),
      generationSeconds: seconds(clock.now - read))
    if json {
      try printJSON(report)
    } else {
      print()
      FileHandle.standardError.write(Data((report.summary + "\n").utf8))
    }
  }

  private func promptText() throws(LongspanError) -> String {
    switch (prompt, promptFile) {
    case (let text?, nil):
      guard !text.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
      return text
    case (nil, let path?): return try TextFile.read(path)
    case (nil, nil): throw LongspanError(.invalidText, "there is no prompt: give --prompt or --prompt-file")
    case (_?, _?): throw LongspanError(.invalidArgument, "give --prompt or --prompt-file, not both")
    }
  }

  private func tokens(of text: String, _ model: any LanguageModel) throws(LongspanError) -> [Int32] {
    let all = try allTokens(of: text, model)
    guard let promptTokens else { return all }
    guard promptTokens <= all.count else {
      throw LongspanError(
        .invalidText, "the prompt has \(all.count) tokens, fewer than --prompt-tokens \(promptTokens)")
    }
    return Array(all.prefix(promptTokens))
  }

  private func allTokens(of text: String, _ model: any LanguageModel) throws(LongspanError) -> [Int32] {
    if chat || system != nil {
      let template = try model.chatTemplate.get()
      let turns =
        (system.map { [ChatMessage(role: "system", content: $0)] } ?? []) + [
          ChatMessage(role: "user", content: text)
        ]
      return model.tokenizer.encode(template.render(turns), parsingSpecialTokens: true)
    }
    return model.promptTokens(text)
  }

  private func emit(_ piece: String, _ answer: inout String) {
    answer += piece
    guard !json, !piece.isEmpty else { return }
    FileHandle.standardOutput.write(Data(piece.utf8))
  }
}

private struct GenerationReport: Encodable {
  let text: String
  let tokens: [Int32]
  let promptTokens: Int
  let generatedTokens: Int
  let promptSeconds: Double
  let generationSeconds: Double
  let promptTokensPerSecond: Double
  let generationTokensPerSecond: Double
  let kv: String
  let filter: String
  let decode: String
  /// Absent for methods that do not draft.
  let draft: DraftReport?
  let cacheBytes: Int
  let cacheTokens: Int
  let cacheSlots: Int
  let peakMemoryBytes: Int?
  let threads: Int
  let isa: String

  init(
    text: String, filter: String, method: DecodingMethod, generator: borrowing Generator, promptTokens: Int,
    promptSeconds: Double,
    generationSeconds: Double
  ) {
    self.text = text
    tokens = generator.generated
    self.promptTokens = promptTokens
    generatedTokens = generator.generated.count
    self.promptSeconds = promptSeconds
    self.generationSeconds = generationSeconds
    promptTokensPerSecond = Double(promptTokens) / max(promptSeconds, 1e-9)
    generationTokensPerSecond = Double(generatedTokens) / max(generationSeconds, 1e-9)
    kv = generator.sequence.policyName
    self.filter = filter
    decode = method.description
    draft = generator.draftStatistics.map(DraftReport.init)
    cacheBytes = generator.sequence.byteCount
    cacheTokens = generator.sequence.count
    cacheSlots = generator.sequence.slots
    peakMemoryBytes = SystemMemory.peakResidentBytes
    threads = generator.model.context.workerCount
    isa = generator.model.context.isa
  }

  var summary: String {
    "prompt \(promptTokens) tokens at \(decimal(promptTokensPerSecond, 1))/s, generated \(generatedTokens) at "
      + "\(decimal(generationTokensPerSecond, 1))/s, " + (draft.map { "\($0.summary), " } ?? "")
      + "\(cacheSlots > 0 ? "cache" : "state") \(SystemMemory.describe(cacheBytes))"
      + (cacheSlots > 0 && cacheSlots < cacheTokens ? " (\(cacheSlots) slots of \(cacheTokens) tokens)" : "")
      + (peakMemoryBytes.map { ", peak memory \(SystemMemory.describe($0))" } ?? "")
      + " (\(threads) threads, \(isa))"
  }
}
