import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

struct PasskeyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "passkey", abstract: "Asks for a five-digit key that was told once in a long filler text.",
    discussion: """
      Each prompt of each of --lengths tokens hides its key at one of --depths depths, from before the filler to after it \
      (Mohtashami and Jaggi 2023). Exact is the share of keys that were found, partial the mean share of leading digits \
      that match.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var cache: PolicyListOptions

  @Option(help: "Tokens of a prompt, between commas.")
  var lengths = "2048,4096,8192"

  @Option(help: "Depths to hide the key at, at equal distances.")
  var depths = 10

  @Option(help: "Prompts of each length and depth, with other keys.")
  var samples = 1

  @Option(help: "Seed of the keys.")
  var seed: UInt64 = 0

  @Flag(help: "Wrap the prompt as a chat, by the model's template.")
  var chat = false

  @Option(help: "Write how much of the keys was found, by length and depth, as an SVG heat map a policy.")
  var plot: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    _ = try lengthList()
    guard depths >= 1, depths <= 1000 else {
      throw ValidationError("--depths \(depths) is outside 1 to 1000")
    }
    guard samples >= 1, samples <= 1000 else {
      throw ValidationError("--samples \(samples) is outside 1 to 1000")
    }
  }

  func run() throws {
    let policies = try cache.policies()
    if let plot { try OutputFile.require(plot) }
    let model = try model.load()
    let evaluation = PasskeyEvaluation(
      lengths: try lengthList(), depths: PasskeyTask.depths(depths), samples: samples, seed: seed,
      usesChat: chat, chunk: cache.chunk, cacheType: cache.cacheType)
    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let result = try evaluation.run(model, policies: policies, progress: bar.update)
    bar.clear()
    let names = policies.map(\.description)
    if let plot {
      try PasskeyPlot(
        report: result, policies: names, lengths: evaluation.lengths, depths: evaluation.depths,
        title: "\(model.name), passkey retrieval"
      ).write(to: plot)
    }
    let summary = PasskeySummary(result, names, evaluation, model)
    if json {
      try printJSON(summary)
    } else {
      summary.printTable()
    }
  }

  private func lengthList() throws -> [Int] {
    try lengths.split(separator: ",", omittingEmptySubsequences: false).map { part in
      guard let length = Int(part), length >= 1 else {
        throw ValidationError("--lengths: '\(part)' is not a number of tokens; give numbers between commas")
      }
      return length
    }
  }
}

/// What `longspan eval passkey` found, as JSON and as a table.
struct PasskeySummary: Encodable {
  let model: String
  let chat: Bool
  let samples: Int
  let seed: UInt64
  let chunk: Int
  let cacheType: String
  let threads: Int
  let isa: String
  let peakMemoryBytes: Int?
  let rows: [Row]

  /// One policy at one length.
  struct Row: Encodable {
    let kv: String
    let length: Int
    let trials: Int
    let exact: Double
    let partial: Double
    let cacheBytes: Int
    let cacheSlots: Int
    let readTokensPerSecond: Double
    let answerTokensPerSecond: Double
    let seconds: Double
    let depths: [Depth]
  }

  struct Depth: Encodable {
    let depth: Double
    let exact: Double
    let partial: Double
    let answers: [Answer]
  }

  struct Answer: Encodable {
    let key: String
    let answer: String
    let digits: String
    let exact: Bool
    let partial: Double
    let needleDepth: Double
    let seconds: Double
  }

  init(
    _ report: PasskeyReport, _ policies: [String], _ evaluation: PasskeyEvaluation, _ model: any LanguageModel
  ) {
    self.model = model.name
    chat = evaluation.usesChat
    samples = evaluation.samples
    seed = evaluation.seed
    chunk = evaluation.chunk
    cacheType = evaluation.cacheType.rawValue
    threads = model.context.workerCount
    isa = model.context.isa
    peakMemoryBytes = SystemMemory.peakResidentBytes
    rows = policies.flatMap { policy in
      evaluation.lengths.map { Self.row(report, policy, $0, evaluation.depths) }
    }
  }

  private static func row(_ report: PasskeyReport, _ policy: String, _ length: Int, _ depths: [Double]) -> Row
  {
    let trials = report.trials.filter { $0.policy == policy && $0.length == length }
    let whole = PasskeyReport.Summary(trials)
    return Row(
      kv: policy, length: length, trials: whole.trials, exact: whole.exact, partial: whole.partial,
      cacheBytes: whole.cacheBytes, cacheSlots: whole.cacheSlots,
      readTokensPerSecond: whole.readTokensPerSecond, answerTokensPerSecond: whole.answerTokensPerSecond,
      seconds: whole.seconds,
      depths: depths.map { depth in
        let here = trials.filter { $0.depth == depth }
        let summary = PasskeyReport.Summary(here)
        return Depth(
          depth: depth, exact: summary.exact, partial: summary.partial,
          answers: here.map { trial in
            Answer(
              key: trial.key, answer: trial.answer.text, digits: trial.answer.digits,
              exact: trial.answer.isExact, partial: trial.answer.partial, needleDepth: trial.needleDepth,
              seconds: trial.readSeconds + trial.answerSeconds)
          })
      })
  }

  func printTable() {
    print(
      "passkey: \(samples) prompt\(samples == 1 ? "" : "s") a depth\(chat ? ", as a chat" : ""), seed \(seed), "
        + "\(cacheType) cache (\(threads) threads, \(isa))")
    let header = ["policy", "length", "prompts", "exact", "partial", "cache", "slots", "read/s", "seconds"]
    Cell.table(
      [header]
        + rows.map { row in
          [
            row.kv, "\(row.length)", "\(row.trials)", decimal(row.exact, 2), decimal(row.partial, 2),
            SystemMemory.describe(row.cacheBytes), "\(row.cacheSlots)", decimal(row.readTokensPerSecond, 1),
            decimal(row.seconds, 1),
          ]
        })
  }
}
