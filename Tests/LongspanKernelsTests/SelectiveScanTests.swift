import LongspanKernels
import Testing

/// A layer of 2 groups and its inputs, all f32.
private struct Layer {
  let channels = 12
  let states = 5
  let groups = 2
  let tokens = 11
  let offsets: [Int64] = [0, 4, 4, 11]
  let input: [Float]
  let steps: [Float]
  let decay: [Float]
  let b: [Float]
  let c: [Float]
  let skip: [Float]
  let gate: [Float]
  let initial: [Float]
  /// Channels whose number is even drop every token whose step is not above 0.7.
  let rule: TimeStepRule

  init() {
    var random = SplitMix64(seed: 5)
    input = random.floats(tokens * channels)
    steps = random.floats(tokens * channels)
    decay = random.floats(channels * states).map { -abs($0) }
    b = random.floats(tokens * groups * states)
    c = random.floats(tokens * groups * states)
    skip = random.floats(channels)
    gate = random.floats(tokens * channels)
    initial = random.floats(3 * channels * states)
    let bias = random.floats(channels)
    let thresholds = (0..<channels).map { $0 % 2 == 0 ? Float(0.7) : -1 }
    rule = TimeStepRule(
      bias: bias, appliesSoftplus: true, filter: TimeStepFilter(thresholds: thresholds))
  }

  /// The scan by its definition, in double precision.
  func reference() -> (output: [Double], state: [Double], kept: [Int64]) {
    var output = [Double](repeating: 0, count: tokens * channels)
    var state = initial.map(Double.init)
    var kept = [Int64](repeating: 0, count: 3 * channels)
    for sequence in 0..<3 {
      for t in Int(offsets[sequence])..<Int(offsets[sequence + 1]) {
        for e in 0..<channels {
          let raw = Double(steps[t * channels + e]) + Double(rule.bias[e])
          let step = log(1 + exp(raw))
          let isKept = step > Double(rule.filter!.thresholds[e])
          let u = Double(input[t * channels + e])
          var y = Double(skip[e]) * u
          for n in 0..<states {
            let at = (sequence * channels + e) * states + n
            let group = (t * groups + e / (channels / groups)) * states + n
            if isKept {
              state[at] =
                exp(step * Double(decay[e * states + n])) * state[at] + step * Double(b[group]) * u
            }
            y += Double(c[group]) * state[at]
          }
          kept[sequence * channels + e] += isKept ? 1 : 0
          let z = Double(gate[t * channels + e])
          output[t * channels + e] = y * z / (1 + exp(-z))
        }
      }
    }
    return (output, state, kept)
  }
}

@Suite(.serialized) struct SelectiveScanTests {
  @Test(arguments: KernelContext.variants.filter(\.isSupported).map(\.name), [ScanMethod.scan, .update])
  func matchesTheDefinition(isa: String, method: ScanMethod) throws {
    let layer = Layer()
    let context = try KernelContext(threads: 2, isa: isa)
    let expected = layer.reference()
    var workspace = Workspace()
    var state = layer.initial
    var output = [Float](repeating: .nan, count: layer.tokens * layer.channels)
    var kept = [Int64](repeating: -1, count: 3 * layer.channels)
    var stateSpan = state.mutableSpan
    var outputSpan = output.mutableSpan
    var keptSpan = kept.mutableSpan
    try context.selectiveScan(
      method, input: try TensorView(layer.input.span, tokens: layer.tokens, columns: layer.channels),
      steps: try TensorView(layer.steps.span, tokens: layer.tokens, columns: layer.channels),
      rule: layer.rule, decay: layer.decay.span,
      b: try TensorView(layer.b.span, tokens: layer.tokens, heads: layer.groups, columns: layer.states),
      c: try TensorView(layer.c.span, tokens: layer.tokens, heads: layer.groups, columns: layer.states),
      skip: layer.skip.span,
      gate: try TensorView(layer.gate.span, tokens: layer.tokens, columns: layer.channels),
      offsets: layer.offsets, state: &stateSpan, workspace: &workspace, into: &outputSpan, kept: &keptSpan)
    for (got, want) in zip(output, expected.output) { #expect(abs(Double(got) - want) < 1e-5) }
    for (got, want) in zip(state, expected.state) { #expect(abs(Double(got) - want) < 1e-5) }
    #expect(kept == expected.kept)
  }

  /// One sequence without D, gate and rule: 4 tokens of 3 channels and 2 states, of ones.
  private func scan(
    _ method: ScanMethod, channels: Int = 3, decay: Float = -1, offsets: [Int64]? = nil
  ) throws -> [Float] {
    let context = try KernelContext(threads: 1)
    let numbers = [Float](repeating: 1, count: 12)
    let decays = [Float](repeating: decay, count: 6)
    let none = [Float]()
    var workspace = Workspace()
    var state = [Float](repeating: 0, count: 6)
    var output = [Float](repeating: .nan, count: 12)
    var stateSpan = state.mutableSpan
    var outputSpan = output.mutableSpan
    try context.selectiveScan(
      method, input: try TensorView(numbers.span, tokens: 4, columns: channels),
      steps: try TensorView(numbers.span, tokens: 4, columns: 3), rule: TimeStepRule(), decay: decays.span,
      b: try TensorView(numbers.span, tokens: 4, columns: 2),
      c: try TensorView(numbers.span, tokens: 4, columns: 2), skip: none.span, gate: nil, offsets: offsets,
      state: &stateSpan, workspace: &workspace, into: &outputSpan)
    return output
  }

  @Test func takesOneSequenceAndRefusesWhatDoesNotFit() throws {
    for method in [ScanMethod.scan, .update] {
      let output = try scan(method)
      #expect(abs(output[0] - 2) < 1e-6 && abs(output[3] - 2 * (1 + Float(exp(-1)))) < 1e-5)
      #expect(throws: LongspanError.self) { _ = try scan(method, channels: 2) }
      #expect(throws: LongspanError.self) { _ = try scan(method, offsets: [0, 3]) }
    }
    #expect(throws: LongspanError.self) { _ = try scan(.scan, decay: 1) }
  }
}
