import ArgumentParser
import Foundation
import Longspan
import LongspanKernels
import LongspanModels

struct PerplexityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity", abstract: "Measures how well a model predicts a text, by context length.",
    discussion: """
      The text's tokens (without a beginning-of-text token) are cut into windows of --context tokens that do not \
      overlap; each starts at position 0 with an empty cache, and its first token is not scored.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var cache: CacheOptions
  @OptionGroup var filter: FilterOptions

  @Option(
    help: ArgumentHelp(
      "How tokens are computed: plain; \(DecodingOption.multiTokenHelp).", valueName: "method"))
  var decode = "plain"

  @OptionGroup var text: TextOptions

  @Option(name: .shortAndLong, help: "Tokens of a window.")
  var context = 2048

  @Option(help: "Parts of a window whose perplexity is told apart.")
  var buckets = 16

  @Option(help: "Write the perplexity by position in the window as an SVG plot.")
  var plot: String?

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    let policy = try cache.policy()
    let schedule = try schedule()
    let source = try text.read()
    let model = try model.load()
    let tokens = try text.tokens(of: source, model)
    let clock = ContinuousClock()
    let started = clock.now
    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let evaluation = PerplexityEvaluation(
      contextLength: context, chunk: cache.chunk, cacheType: cache.cacheType, policy: policy,
      buckets: buckets,
      timeSteps: try filter.policy(model, self.model), decoding: schedule)
    let result = try evaluation.run(model, tokens: tokens, progress: bar.update)
    bar.clear()
    let report = Report(
      result, self, schedule, model, seconds: seconds(clock.now - started), tokens: tokens.count)
    if let plot {
      try PerplexityPlot(curve: result.curve, title: "\(model.name), context \(context), \(policy)").write(
        to: plot)
    }
    if json {
      try printJSON(report)
    } else {
      printTable(report.rows)
    }
  }

  private func schedule() throws(LongspanError) -> MultiTokenDecoding? {
    switch try DecodingOption.method(decode) {
    case .plain: return nil
    case .multiToken(let schedule): return schedule
    case let method:
      throw LongspanError(
        .unsupported,
        "\(method) drafts what is generated and does not change it: the perplexity is that of plain decoding")
    }
  }

  private struct Report: Encodable {
    let perplexity: Double
    let meanNll: Double
    let meanEntropy: Double
    let context: Int
    let skip: Int
    let tokens: Int
    let scoredTokens: Int
    let tokensPerSecond: Double
    let seconds: Double
    let kv: String
    let filter: String
    let decode: String
    let cacheBytes: Int
    let cacheSlots: Int
    let peakMemoryBytes: Int?
    let threads: Int
    let isa: String
    let curve: [Point]

    struct Point: Encodable {
      let first: Int
      let end: Int
      let perplexity: Double
    }

    init(
      _ result: PerplexityReport, _ command: PerplexityCommand, _ schedule: MultiTokenDecoding?,
      _ model: any LanguageModel, seconds: Double, tokens: Int
    ) {
      perplexity = result.perplexity
      meanNll = result.meanNLL
      meanEntropy = result.meanEntropy
      context = command.context
      skip = command.text.skip
      self.tokens = tokens
      scoredTokens = result.scoredTokens
      self.seconds = seconds
      tokensPerSecond = Double(tokens) / max(seconds, 1e-9)
      kv = result.cacheSlots > 0 ? command.cache.kv : "recurrent"
      filter = command.filter.filter
      decode = schedule?.description ?? DecodingMethod.plain.description
      cacheBytes = result.cacheBytes
      cacheSlots = result.cacheSlots
      peakMemoryBytes = SystemMemory.peakResidentBytes
      threads = model.context.workerCount
      isa = model.context.isa
      curve = result.curve.map { Point(first: $0.first, end: $0.end, perplexity: $0.perplexity) }
    }

    var rows: [(String, String)] {
      [
        ("perplexity", decimal(perplexity, 3)),
        ("mean loss", "\(decimal(meanNll, 4)) nats over \(scoredTokens) tokens"),
        ("mean entropy", "\(decimal(meanEntropy, 4)) nats"),
        ("context", "\(context) tokens"),
        (
          cacheSlots > 0 ? "cache" : "state",
          cacheSlots > 0
            ? "\(kv): \(SystemMemory.describe(cacheBytes)) in \(cacheSlots) slots"
            : "\(SystemMemory.describe(cacheBytes)), filter \(filter)"
        ),
        ("decoding", decode),
        (
          "speed",
          "\(decimal(tokensPerSecond, 1)) tokens/s, \(decimal(seconds, 1)) s (\(threads) threads, \(isa))"
        ),
        ("peak memory", peakMemoryBytes.map(SystemMemory.describe) ?? "unknown"),
      ] + curve.map { ("  positions \($0.first)-\($0.end - 1)", decimal($0.perplexity, 2)) }
    }
  }
}
