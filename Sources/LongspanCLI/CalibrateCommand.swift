import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

extension CalibrationAggregate: ExpressibleByArgument {}

struct CalibrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate", abstract: "Measures what LongMamba needs to know of a Mamba or Mamba-2 model.",
    discussion: """
      Reads windows of a text and writes, for each layer, how far each channel or head decays over a window and which time \
      steps to drop of longer texts (Ye et al. 2025). The file goes into --filter longmamba:FILE and belongs to this model \
      alone.
      """)

  @OptionGroup var model: ModelOptions

  @Option(help: "A UTF-8 text file.")
  var text: String

  @Option(help: "Windows to read, at even distances.")
  var windows = 5

  @Option(
    help: "Tokens of a window, at most those the model was trained on at once; by default those, or 2000.")
  var length: Int?

  @Option(help: "Share of the largest time steps that are lowered to the smallest of them.")
  var clamp = 0.05

  @Option(help: "How windows are combined: avg or max.")
  var aggregate = CalibrationAggregate.average

  @Option(
    help:
      "Share of a state that must be left after a window for a head to be filtered; a filter can choose another."
  )
  var theta: Double?

  @Flag(
    help: "Leave out what thresholds of lengths that are not listed need: smaller files for large models.")
  var listedOnly = false

  @Option(name: .shortAndLong, help: "The file to write.")
  var output: String

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    try OutputFile.require(output)
    let text = try TextFile.read(text)
    let loaded = try model.load()
    guard let subject = loaded as? any StateSpaceModel else {
      throw LongspanError(
        .unsupported,
        "\(loaded.name): a model of architecture \(loaded.architecture) has no time steps to calibrate")
    }
    let length = length ?? min(2000, subject.trainedContext)
    guard length <= subject.trainedContext else {
      throw LongspanError(
        .invalidArgument,
        "--length \(length) is more than the \(subject.trainedContext) tokens the model was trained on")
    }
    let calibration = CalibrationRun(
      length: length, windows: windows, clamp: clamp, aggregate: aggregate, keepsProfiles: !listedOnly,
      theta: theta)
    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let result = try calibration.run(
      subject, tokens: subject.tokenizer.encode(text, parsingSpecialTokens: true),
      modelHash: try model.fingerprint(), progress: bar.update)
    bar.clear()
    let file = try result.encoded()
    try OutputFile.write(String(decoding: file, as: UTF8.self), to: output)
    let summary = Summary(result, output)
    if json {
      try printJSON(summary)
    } else {
      summary.printTable()
    }
  }

  private struct Summary: Encodable {
    struct Layer: Encodable {
      let layer: Int
      let global: Int
      let channels: Int
      let leastProductLog10: Double
      let greatestProductLog10: Double
    }

    let file: String
    let model: String
    let length: Int
    let windows: Int
    let clamp: Double
    let aggregate: String
    let theta: Double
    let layers: [Layer]

    init(_ calibration: LongMambaCalibration, _ file: String) {
      self.file = file
      model = calibration.modelName
      length = calibration.length
      windows = calibration.windows
      clamp = calibration.clamp
      aggregate = calibration.aggregate.rawValue
      theta = calibration.defaultTheta
      layers = calibration.layers.enumerated().map { index, layer in
        let logarithms = layer.logProducts.map { $0 / 2.302585092994046 }
        return Layer(
          layer: index, global: calibration.globalChannels(layer: index, theta: calibration.defaultTheta),
          channels: calibration.channels, leastProductLog10: logarithms.min() ?? 0,
          greatestProductLog10: logarithms.max() ?? 0)
      }
    }

    func printTable() {
      print(
        "\(model): \(windows) windows of \(length) tokens, clamp \(clamp), \(aggregate); global: product above \(theta)"
      )
      Cell.table(
        [["layer", "global", "of", "least product", "greatest"]]
          + layers.map { layer in
            [
              "\(layer.layer)", "\(layer.global)", "\(layer.channels)",
              "1e\(decimal(layer.leastProductLog10, 1))", "1e\(decimal(layer.greatestProductLog10, 2))",
            ]
          })
      print("written to \(file)")
    }
  }
}
