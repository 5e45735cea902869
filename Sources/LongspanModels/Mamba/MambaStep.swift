import LongspanKernels

/// The activations of one step, allocated together and reused by every layer.
struct MambaStep: ~Copyable {
  /// Some columns of a matrix with contiguous rows.
  struct Columns {
    let offset: Int
    let count: Int
    /// Of the matrix.
    let width: Int
  }

  /// Where the parts of a layer's activations lie.
  struct Layout {
    /// What is convolved, and the gate z, in `projected`.
    let convolved: Columns
    let gate: Columns
    /// x in `convolved`.
    let input: Columns
    /// B and C, and the time steps, in `low` and `steps` of Mamba; in `convolved` and `projected` of Mamba-2.
    let b: Columns
    let c: Columns
    let steps: Columns

    init(_ c: MambaConfiguration) {
      let channels = c.convolutionChannels
      input = Columns(offset: 0, count: c.inner, width: channels)
      switch c.mixer {
      case .selective(let rank):
        let width = rank + 2 * c.stateSize
        convolved = Columns(offset: 0, count: channels, width: 2 * c.inner)
        gate = Columns(offset: c.inner, count: c.inner, width: 2 * c.inner)
        b = Columns(offset: rank, count: c.stateSize, width: width)
        self.c = Columns(offset: rank + c.stateSize, count: c.stateSize, width: width)
        steps = Columns(offset: 0, count: c.inner, width: c.inner)
      case .dual(let heads, let groups):
        let width = c.inner + channels + heads
        convolved = Columns(offset: c.inner, count: channels, width: width)
        gate = Columns(offset: 0, count: c.inner, width: width)
        b = Columns(offset: c.inner, count: groups * c.stateSize, width: channels)
        self.c = Columns(offset: c.inner + groups * c.stateSize, count: groups * c.stateSize, width: channels)
        steps = Columns(offset: c.inner + channels, count: heads, width: width)
      }
    }
  }

  let layout: Layout
  private let isDual: Bool
  /// Rows that have not been dropped.
  private(set) var rows: Int
  var normed: AlignedBuffer<Float>
  /// What the layer's input product gives.
  var projected: AlignedBuffer<Float>
  var convolved: AlignedBuffer<Float>
  /// The low-rank time steps, B and C of Mamba; empty for Mamba-2.
  var low: AlignedBuffer<Float>
  /// The time steps of Mamba; empty for Mamba-2.
  var steps: AlignedBuffer<Float>
  /// What the output product takes.
  var scanned: AlignedBuffer<Float>
  /// The scan of Mamba-2 before its norm; empty for Mamba, whose scan has the gate in it.
  var ungated: AlignedBuffer<Float>

  /// Tokens whose activations need not be checked against free memory, which takes longer than such a step's kernels.
  private static let uncheckedTokens = 64

  // Every allocation may throw, so none is stored before all are made.
  init(_ c: MambaConfiguration, count: Int) throws(LongspanError) {
    let layout = Layout(c)
    let isDual = c.architecture == "mamba2"
    let low = isDual ? 0 : layout.b.width
    let steps = isDual ? 0 : layout.steps.width
    let ungated = isDual ? c.inner : 0
    let widths = [
      c.hidden, c.hidden, layout.convolved.width, layout.input.width, low, steps, c.inner, ungated,
    ]
    let (bytes, overflow) = count.multipliedReportingOverflow(
      by: widths.reduce(0, +) * MemoryLayout<Float>.stride)
    if overflow || count > Self.uncheckedTokens {
      try SystemMemory.require(overflow ? Int.max : bytes, for: "the activations of \(count) tokens at once")
    }
    let normedBuffer = try AlignedBuffer<Float>(count: count * c.hidden)
    let projectedBuffer = try AlignedBuffer<Float>(count: count * layout.convolved.width)
    let convolvedBuffer = try AlignedBuffer<Float>(count: count * layout.input.width)
    let lowBuffer = try AlignedBuffer<Float>(count: count * low)
    let stepsBuffer = try AlignedBuffer<Float>(count: count * steps)
    let scannedBuffer = try AlignedBuffer<Float>(count: count * c.inner)
    let ungatedBuffer = try AlignedBuffer<Float>(count: count * ungated)
    self.layout = layout
    self.isDual = isDual
    rows = count
    normed = normedBuffer
    projected = projectedBuffer
    convolved = convolvedBuffer
    self.low = lowBuffer
    self.steps = stepsBuffer
    scanned = scannedBuffer
    self.ungated = ungatedBuffer
  }

  /// What the time steps are made of, `[rows, channels]`.
  @_lifetime(borrow self)
  func timeSteps() throws(LongspanError) -> TensorView {
    isDual ? try projected.view(layout.steps, rows: rows) : try steps.view(layout.steps, rows: rows)
  }

  /// Drops all but some rows of what the scan is about to read.
  mutating func keep(_ kept: [Int]) {
    projected.keep(kept, width: layout.convolved.width)
    convolved.keep(kept, width: layout.input.width)
    if !isDual {
      low.keep(kept, width: layout.b.width)
      steps.keep(kept, width: layout.steps.width)
    }
    rows = kept.count
  }
}

extension AlignedBuffer<Float> {
  /// Columns of a matrix as a tensor of `heads` equal runs of them.
  @_lifetime(borrow self)
  func view(
    _ columns: MambaStep.Columns, rows: Int, heads: Int = 1
  ) throws(LongspanError) -> TensorView {
    try TensorView(
      span.extracting(columns.offset..<count).bytes,
      TensorLayout(
        tokens: rows, heads: heads, columns: columns.count / heads, tokenStride: columns.width))
  }

  /// Moves some rows, given in ascending order, to the front.
  mutating func keep(_ rows: [Int], width: Int) {
    var values = mutableSpan
    for (target, source) in rows.enumerated() where target != source {
      for column in 0..<width { values[target * width + column] = values[source * width + column] }
    }
  }
}
