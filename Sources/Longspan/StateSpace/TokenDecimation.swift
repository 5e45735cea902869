import LongspanKernels

/// DeciMamba (Ben-Kish et al. 2024): from certain layers on, only the tokens with the largest time steps of a prompt go on.
///
/// A token's score in a layer is the L2 norm of its time steps over the channels. Layer number s of the list keeps
/// `max(min(S, base * beta^s), least)` of a prompt's S tokens. A prompt that is read in several steps keeps of each its share
/// of that number, and always the last token, which the next one is predicted from. Generated tokens all stay.
public struct TokenDecimation: TimeStepPolicy {
  /// Layers behind which tokens are dropped, ascending.
  public let layers: [Int]
  /// The most tokens behind the first of the layers.
  public let base: Int
  /// Factor of that number from one of the layers to the next.
  public let beta: Double
  /// Tokens that stay at least.
  public let least: Int

  /// - Parameters:
  ///   - layers: in ascending order.
  ///   - base: tokens that the first of them keeps, at least 1.
  ///   - beta: by what each further one's number shrinks, above 0 and up to 1.
  ///   - least: tokens that every layer keeps, at least 1.
  public init(
    layers: [Int], base: Int = 2000, beta: Double = 0.5, least: Int = 20
  ) throws(LongspanError) {
    guard !layers.isEmpty, zip(layers, layers.dropFirst()).allSatisfy({ $0 < $1 }) else {
      throw LongspanError(.invalidArgument, "decimamba: layers must be at least one, in ascending order")
    }
    guard base >= 1, least >= 1, beta > 0, beta <= 1 else {
      throw LongspanError(
        .invalidArgument,
        "decimamba: base \(base) and least \(least) must be at least 1, beta \(beta) above 0 and up to 1")
    }
    self.layers = layers
    self.base = base
    self.beta = beta
    self.least = least
  }

  public var description: String {
    "decimamba:layers=\(layers.map(String.init).joined(separator: "+")),base=\(base),beta=\(beta),least=\(least)"
  }

  public var decimatedLayers: Set<Int> { Set(layers) }

  public func check(_ shape: StateSpaceShape) throws(LongspanError) {
    if let layer = layers.first(where: { $0 < 0 || $0 >= shape.layers }) {
      throw LongspanError(
        .invalidArgument, "decimamba: the model has no layer \(layer), only 0 to \(shape.layers - 1)")
    }
  }

  public func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] { [] }

  public func rowsToKeep(layer: Int, steps: Span<Float>, rows: Int, step: ReadingStep) -> [Int]? {
    guard step.isPrompt, let number = layers.firstIndex(of: layer), rows > 1, step.count > 0 else {
      return nil
    }
    let length = step.textLength
    var wanted = Double(base)
    for _ in 0..<number { wanted *= beta }
    let whole = max(min(length, Int(wanted)), least)
    // the step's share of what the prompt keeps, rounded up
    let keep = min(rows, max(1, (whole * step.count + length - 1) / length))
    guard keep < rows else { return nil }
    let channels = steps.count / rows
    let scores = (0..<rows).map { row in
      (0..<channels).reduce(0.0) { sum, channel in
        let step = Double(steps[row * channels + channel])
        return sum + step * step
      }
    }
    let ranked = (0..<rows - 1).sorted { (scores[$0], $1) > (scores[$1], $0) }
    return ranked.prefix(keep - 1).sorted() + [rows - 1]
  }
}
