import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare", abstract: "Runs several cache policies on one text, side by side.",
    discussion: """
      Perplexities are those of 'longspan perplexity'. Then each policy reads the text's first --context tokens and \
      generates --generate tokens after them, past the model's end of text; the decode speed is one over the median time \
      of a token. Ratios are to the first policy.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var cache: PolicyListOptions
  @OptionGroup var text: TextOptions

  @Option(name: .shortAndLong, help: "Tokens of a window.")
  var context = 8192

  @Option(help: "Tokens to generate.")
  var generate = 64

  @Option(help: "Write perplexity against cache bytes as an SVG plot, a point for each policy.")
  var plot: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    guard context >= 2 else { throw ValidationError("--context \(context) is below 2") }
    guard generate >= 1 else { throw ValidationError("--generate \(generate) is below 1") }
  }

  func run() throws {
    let policies = try cache.policies()
    if let plot { try OutputFile.require(plot) }
    let source = try text.read()
    let model = try model.load()
    let tokens = try text.tokens(of: source, model)
    let comparison = PolicyComparison(
      contextLength: context, chunk: cache.chunk, cacheType: cache.cacheType, generated: generate)
    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let results = try comparison.run(model, tokens: tokens, policies: policies, progress: bar.update)
    bar.clear()
    if let plot {
      try ComparisonPlot(
        points: results.map {
          .init(label: $0.policy, bytes: $0.perplexity.cacheBytes, perplexity: $0.perplexity.perplexity)
        }, title: "\(model.name), context \(context)"
      ).write(to: plot)
    }
    let report = ComparisonReport(results, self, model, tokens: tokens.count)
    if json {
      try printJSON(report)
    } else {
      report.printTable()
    }
  }
}

/// What `longspan compare` found, as JSON and as a table.
struct ComparisonReport: Encodable {
  let model: String
  let context: Int
  let skip: Int
  let tokens: Int
  let generate: Int
  let chunk: Int
  let cacheType: String
  let threads: Int
  let isa: String
  let peakMemoryBytes: Int?
  let policies: [Row]

  struct Row: Encodable {
    let kv: String
    let perplexity: Double
    let perplexityRatio: Double
    let meanNll: Double
    let scoredTokens: Int
    let cacheBytes: Int
    let cacheBytesRatio: Double
    let cacheSlots: Int
    let scoringTokensPerSecond: Double
    let readingTokensPerSecond: Double
    let decodeTokensPerSecond: Double
    let decodeSpeedRatio: Double
    let decodeMedianSeconds: Double
    let decodeSeconds: [Double]

    /// Ratios are to `first`.
    init(_ result: PolicyMeasurement, to first: PolicyMeasurement) {
      kv = result.policy
      perplexity = result.perplexity.perplexity
      perplexityRatio = result.perplexity.perplexity / first.perplexity.perplexity
      meanNll = result.perplexity.meanNLL
      scoredTokens = result.perplexity.scoredTokens
      cacheBytes = result.perplexity.cacheBytes
      cacheBytesRatio = Double(result.perplexity.cacheBytes) / Double(max(1, first.perplexity.cacheBytes))
      cacheSlots = result.perplexity.cacheSlots
      scoringTokensPerSecond = result.scoringTokensPerSecond
      readingTokensPerSecond = result.readingTokensPerSecond
      decodeTokensPerSecond = result.decodeTokensPerSecond
      decodeSpeedRatio = result.decodeTokensPerSecond / first.decodeTokensPerSecond
      decodeMedianSeconds = result.medianDecodeSeconds
      decodeSeconds = result.decodeSeconds
    }
  }

  init(_ results: [PolicyMeasurement], _ command: CompareCommand, _ model: any LanguageModel, tokens: Int) {
    self.model = model.name
    context = command.context
    skip = command.text.skip
    self.tokens = tokens
    generate = command.generate
    chunk = command.cache.chunk
    cacheType = command.cache.cacheType.rawValue
    threads = model.context.workerCount
    isa = model.context.isa
    peakMemoryBytes = SystemMemory.peakResidentBytes
    policies = results.first.map { first in results.map { Row($0, to: first) } } ?? []
  }

  func printTable() {
    print(
      "\(tokens) tokens in windows of \(context), \(generate) generated, \(cacheType) cache (\(threads) threads, "
        + "\(isa)); ratios are to the first policy")
    let header = ["policy", "perplexity", "ratio", "cache", "ratio", "slots", "read/s", "decode/s", "ratio"]
    Cell.table(
      [header]
        + policies.map { row in
          [
            row.kv, decimal(row.perplexity, 3), decimal(row.perplexityRatio, 3),
            SystemMemory.describe(row.cacheBytes), decimal(row.cacheBytesRatio, 3), "\(row.cacheSlots)",
            decimal(row.readingTokensPerSecond, 1), decimal(row.decodeTokensPerSecond, 1),
            decimal(row.decodeSpeedRatio, 2),
          ]
        })
  }
}
